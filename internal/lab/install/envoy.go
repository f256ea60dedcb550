package install

import (
	"context"
	"io"
)

// Envoy is Ensure for Envoy alone: it returns the program's full path.
func Envoy(ctx context.Context, progress io.Writer) (string, error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	return i.envoy(ctx)
}
