package envtestkit

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"crossway.dev/crossway/internal/lab/controlplane"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/process"
)

// server is the binary's one control plane; the first Config starts it.
var server struct {
	once    sync.Once
	err     error
	group   *process.Group
	dir     string
	cluster *controlplane.Cluster
}

// Main runs a binary's tests, stops the API server if one was started, and
// exits with the tests' result.
func Main(m *testing.M) {
	code := m.Run()
	if server.group != nil {
		server.group.Close()
	}
	if server.dir != "" {
		_ = os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// Config is the administrator's configuration of the shared API server, which
// the first call starts (about 5 s). It has no client-side rate limit.
func Config(t testing.TB) *rest.Config {
	t.Helper()
	return rest.CopyConfig(start(t).REST)
}

// Dir is a directory for all tests of a binary, gone when they end.
func Dir(t testing.TB) string {
	t.Helper()
	start(t)
	return server.dir
}

// As is Config for another user: a client certificate with this user and these
// groups, bound only by RBAC.
func As(t testing.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	c := start(t)
	pair, err := c.CA.Client(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return c.RESTFor(pair)
}

// Freeze stops the API server as controlplane.Cluster.Freeze does, until thaw is called
// or the test ends.
func Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	c := start(t)
	c.Freeze()
	t.Cleanup(c.Thaw)
	return c.Thaw
}

// Kubeconfig is a kubeconfig file of the administrator, for tests that run
// kubectl (see Kubectl).
func Kubeconfig(t testing.TB) string {
	t.Helper()
	return start(t).Kubeconfig
}

// skipShort skips a test under go test -short, the edit loop: real programs take seconds.
func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an API server: run without -short")
	}
}

// Programs are the Kubernetes programs: Path("kubectl") and its siblings.
func Programs(t testing.TB) install.Programs {
	t.Helper()
	skipShort(t)
	p, err := install.Kubernetes(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func start(t testing.TB) *controlplane.Cluster {
	t.Helper()
	skipShort(t)
	server.once.Do(func() { server.err = startServer() })
	if server.err != nil {
		t.Fatal("start API server: ", server.err)
	}
	return server.cluster
}

func startServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a cold machine builds first
	defer cancel()
	programs, err := install.Kubernetes(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if server.dir, err = os.MkdirTemp("", "crossway-envtest-"); err != nil {
		return err
	}
	server.group = process.NewGroup(nil)
	env := controlplane.Env{Programs: programs, Group: server.group, Dir: server.dir, LogDir: server.dir}
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	etcd, err := controlplane.StartEtcd(ctx, env, "127.0.0.1", ports[0], ports[1])
	if err != nil {
		return err
	}
	address, err := machineAddress()
	if err != nil {
		return err
	}
	server.cluster, err = controlplane.Start(ctx, env, controlplane.Spec{
		Name: "envtest", Etcd: etcd, Address: address, Control: "127.0.0.1", Port: ports[2],
		ServiceCIDR: "10.255.0.0/16", APIServerOnly: true,
	})
	if err != nil {
		return err
	}
	dirs, err := CRDDirs(ctx)
	if err != nil {
		return err
	}
	_, err = envtest.InstallCRDs(server.cluster.REST, envtest.CRDInstallOptions{Paths: dirs, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond})
	return err
}

// CRDDirs are the directories of the CRDs that a hub needs: the Gateway API's
// standard channel and mcs-api's, from the modules that go.mod pins, and
// Crossway's own from charts/hub/crds.
func CRDDirs(ctx context.Context) ([]string, error) {
	root, err := install.ModuleRoot()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range []struct{ module, dir string }{
		{"sigs.k8s.io/gateway-api", "config/crd/standard"},
		{"sigs.k8s.io/mcs-api", "config/crd"},
	} {
		dir, err := install.ModuleDir(ctx, m.module)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, filepath.Join(dir, m.dir))
	}
	own := filepath.Join(root, "charts/hub/crds")
	if _, err := os.Stat(own); err == nil {
		dirs = append(dirs, own)
	}
	return dirs, nil
}

// freePorts finds ports by listening on port 0. Another process may take one
// in between; the server then fails to start and says so.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// machineAddress is an address of this machine that is not loopback, which an
// API server refuses to advertise; nothing dials it. A machine without one
// uses an address from the documentation range.
func machineAddress() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil && ip.IsGlobalUnicast() {
			return ip.String(), nil
		}
	}
	return "192.0.2.1", nil
}
