package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/kubelet"
)

// ours are the project's own programs that run as pods, by the image
// repositories that the charts and the demo's manifests name.
var ours = []struct{ image, name, pkg string }{
	{"crossway/hub", "hub", "./cmd/hub"},
	{"crossway/member-agent", "member-agent", "./cmd/member-agent"},
	{"crossway/crossway", "crossway", "./cmd/crossway"},
	{"crossway/echo", "echo", "./internal/lab/echo/cmd/echo"},
}

// hubFaults is the hub with the build tag faults: tests switch its mechanisms
// off with --disable.
const hubFaults = "hub-faults"

// binVariable is the directory in which Build put the programs, for the program inside.
const binVariable = "CROSSWAY_LAB_BIN"

// Build builds the project's own programs, all or those that are named
// ("hub", "member-agent", "crossway", "echo"), and returns their directory:
// out/bin, or out/bin-race with the race detector.
func Build(ctx context.Context, progress io.Writer, race bool, only ...string) (string, error) {
	root, err := install.ModuleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "out/bin")
	args := []string{"build"}
	if race {
		dir, args = dir+"-race", append(args, "-race")
	}
	args = append(args, "-o", dir+string(filepath.Separator))
	for _, o := range ours {
		if len(only) == 0 || slices.Contains(only, o.name) {
			args = append(args, o.pkg)
		}
	}
	begin := time.Now()
	fmt.Fprintln(progress, "building Crossway's programs ...")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	fmt.Fprintf(progress, "built Crossway's programs in %s\n", time.Since(begin).Round(100*time.Millisecond))
	return dir, nil
}

// buildHubFaults builds the program hubFaults beside the others.
func buildHubFaults(ctx context.Context, dir string, race bool) error {
	args := []string{"build", "-tags=faults", "-o", filepath.Join(dir, hubFaults)}
	if race {
		args = append(args, "-race")
	}
	root, err := install.ModuleRoot()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/hub")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// ourImages are the images of the programs that were built.
func ourImages() kubelet.Images {
	images := kubelet.Images{}
	dir := os.Getenv(binVariable)
	for _, o := range ours {
		file := filepath.Join(dir, o.name)
		if dir != "" && exists(file) {
			images[o.image] = kubelet.Program(file)
		}
	}
	if file := filepath.Join(dir, hubFaults); dir != "" && exists(file) {
		images["crossway/"+hubFaults] = kubelet.Program(file)
	}
	return images
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
