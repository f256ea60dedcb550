package install

import (
	"context"
	"io"
)

// Envoy is Ensure for Envoy alone: it returns the program's full path.
func Envoy(ctx context.Context, progress io.Writer) (string, error) {
	i, err := newInstaller(progress)
	if err != nil {
		return "", err
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return i.envoy(ctx)
}
