package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Versions of what is installed. internal/lab/binaries pins the modules; the
// Kubernetes version is repeated here because it is linked into the programs.
const (
	KubernetesVersion = "1.37.2"
	EnvoyVersion      = "1.40.0"
)

// Programs says where the programs are.
type Programs struct {
	// Dir holds etcd, kube-apiserver, kube-controller-manager, kube-proxy and
	// kubectl; it also serves as envtest's BinaryAssetsDirectory.
	Dir string
	// CoreDNS, Envoy and Helm are full paths. Helm is empty where the module
	// hack/tools does not exist.
	CoreDNS, Envoy, Helm string
}

// Path is the full path of a program in Dir.
func (p Programs) Path(name string) string { return filepath.Join(p.Dir, name) }

// Ensure returns the programs, building and downloading what is missing.
// Progress lines go to progress. Cold on 2 cores it takes about 8 minutes,
// warm some milliseconds.
func Ensure(ctx context.Context, progress io.Writer) (Programs, error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	var p Programs
	if err := i.systemPackages(ctx, debian); err != nil {
		return p, err
	}
	if p.Dir, err = i.kubernetes(ctx); err != nil {
		return p, err
	}
	if p.CoreDNS, err = i.coreDNS(ctx); err != nil {
		return p, err
	}
	if p.Envoy, err = i.envoy(ctx); err != nil {
		return p, err
	}
	p.Helm, err = i.helm(ctx)
	return p, err
}

// Kubernetes is Ensure for the Kubernetes programs alone, for tests that need
// an API server and nothing else.
func Kubernetes(ctx context.Context, progress io.Writer) (Programs, error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	dir, err := i.kubernetes(ctx)
	return Programs{Dir: dir}, err
}

// ModuleRoot is the directory of the project's go.mod, found from the working
// directory: a test or a program of this module runs below it.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "internal/lab/binaries/go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not below the root of the module crossway.dev/crossway")
		}
	}
}

type installer struct {
	root, cache string
	progress    io.Writer
}

func newInstaller(progress io.Writer) (*installer, error) {
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	return &installer{root: root, cache: cache, progress: progress}, os.MkdirAll(cache, 0o755)
}

// lockedInstaller is an installer while no other run installs, until unlock.
func lockedInstaller(ctx context.Context, progress io.Writer) (i *installer, unlock func(), err error) {
	if i, err = newInstaller(progress); err != nil {
		return nil, nil, err
	}
	unlock, err = i.lock(ctx)
	return i, unlock, err
}

// CacheDir is where programs are kept between runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("CROSSWAY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "crossway"), err
}

// lock waits until no other run installs. The kernel frees the lock with the
// process.
func (i *installer) lock(ctx context.Context) (func(), error) {
	f, err := os.OpenFile(filepath.Join(i.cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for printed := false; ; printed = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !printed {
			fmt.Fprintln(i.progress, "waiting for another run that installs programs ...")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// step runs a slow act, and prints that it began and how long it took.
func (i *installer) step(what string, act func() error) error {
	begin := time.Now()
	fmt.Fprintf(i.progress, "%s ...\n", what)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(30 * time.Second):
				fmt.Fprintf(i.progress, "  still %s (%s)\n", what, time.Since(begin).Round(time.Second))
			}
		}
	}()
	if err := act(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(i.progress, "  done in %s\n", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// key is a short hash of files: what a cached build depends on.
func key(files ...string) (string, error) {
	h := sha256.New()
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// run runs a command; its error has the command's output.
func run(ctx context.Context, dir string, env []string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, tail(string(out), 30))
	}
	return nil
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// ModuleDir is the directory of a module that the project's go.mod pins.
func ModuleDir(ctx context.Context, module string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err == nil && dir == "" {
		err = errors.New("not in the module cache: go mod download")
	}
	if err != nil {
		return "", fmt.Errorf("directory of %s: %w", module, err)
	}
	return dir, nil
}
