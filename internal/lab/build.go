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

// NextVersion is what the image crossway/hub-next says its version is.
const NextVersion = "v0.0.0-next"

// hubVariants are other builds of the hub, as images crossway/<name>, by the options of `go build`.
var hubVariants = map[string][]string{
	"hub-faults": {"-tags=faults"},
	"hub-next":   {"-ldflags=-X crossway.dev/crossway/pkg/program.version=" + NextVersion},
}

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

// buildHub builds a variant of the hub beside the other programs.
func buildHub(ctx context.Context, dir string, race bool, variant string) error {
	args := append([]string{"build", "-o", filepath.Join(dir, variant)}, hubVariants[variant]...)
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
	for variant := range hubVariants {
		if file := filepath.Join(dir, variant); dir != "" && exists(file) {
			images["crossway/"+variant] = kubelet.Program(file)
		}
	}
	return images
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
