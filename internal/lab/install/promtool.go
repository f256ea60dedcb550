package install

import (
	"context"
	"io"
	"path/filepath"
)

// Promtool is Ensure for promtool alone, Prometheus' own checker of rules: it returns
// the program's full path. The module hack/promtool pins it; without the tag it would be
// linked with the clients of all clouds.
func Promtool(ctx context.Context, progress io.Writer) (string, error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	module := filepath.Join(i.root, "hack/promtool")
	version, err := key(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	out := filepath.Join(i.cache, "promtool-"+version, "promtool")
	if exists(out) {
		return out, nil
	}
	return out, i.step("building promtool (about 2 min on 2 cores)", func() error {
		return i.build(ctx, build{module: module, pkg: "github.com/prometheus/prometheus/cmd/promtool",
			flags: []string{"-trimpath", "-tags", "remove_all_sd", "-ldflags", "-s -w"}, out: out})
	})
}
