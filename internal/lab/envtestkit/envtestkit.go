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

// server is the binary's control plane; the first Config starts it. other is a
// second one on the same etcd, which the first Other starts.
var server, other struct {
	once    sync.Once
	err     error
	cluster *controlplane.Cluster
}

// shared is what both control planes run in.
var shared struct {
	controllers bool

	group *process.Group
	dir   string
	etcd  string
}

// Main runs a binary's tests, stops the API server if one was started, and
// exits with the tests' result.
func Main(m *testing.M) {
	code := m.Run()
	if shared.group != nil {
		shared.group.Close()
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// MainWithControllers is Main with a kube-controller-manager beside each API
// server, for tests that need a quota counted or a namespace deleted.
func MainWithControllers(m *testing.M) {
	shared.controllers = true
	Main(m)
}

// Config is the administrator's configuration of the shared API server, which
// the first call starts (about 5 s). It has no client-side rate limit.
func Config(t testing.TB) *rest.Config {
	t.Helper()
	return rest.CopyConfig(start(t).REST)
}

// Other is the administrator's configuration of a second API server: another
// cluster. All tests share it, too.
func Other(t testing.TB) *rest.Config {
	t.Helper()
	start(t)
	other.once.Do(func() { other.cluster, other.err = startCluster("other", "10.254.0.0/16") })
	if other.err != nil {
		t.Fatal("start the other API server: ", other.err)
	}
	return rest.CopyConfig(other.cluster.REST)
}

// Dir is a directory for all tests of a binary, gone when they end.
func Dir(t testing.TB) string {
	t.Helper()
	start(t)
	return shared.dir
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
	var err error
	if shared.dir, err = os.MkdirTemp("", "crossway-envtest-"); err != nil {
		return err
	}
	shared.group = process.NewGroup(nil)
	server.cluster, err = startCluster("envtest", "10.255.0.0/16")
	return err
}

// startCluster starts an API server with Crossway's CRDs and, before the first one, etcd.
func startCluster(name, services string) (*controlplane.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a cold machine builds first
	defer cancel()
	programs, err := install.Kubernetes(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	env := controlplane.Env{Programs: programs, Group: shared.group, Dir: shared.dir, LogDir: shared.dir}
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	if shared.etcd == "" {
		if shared.etcd, err = controlplane.StartEtcd(ctx, env, "127.0.0.1", ports[0], ports[1]); err != nil {
			return nil, err
		}
	}
	address, err := machineAddress()
	if err != nil {
		return nil, err
	}
	cluster, err := controlplane.Start(ctx, env, controlplane.Spec{
		Name: name, Etcd: shared.etcd, Address: address, Control: "127.0.0.1", Port: ports[2],
		ServiceCIDR: services, APIServerOnly: !shared.controllers,
	})
	if err != nil {
		return nil, err
	}
	dirs, err := CRDDirs(ctx)
	if err != nil {
		return nil, err
	}
	_, err = envtest.InstallCRDs(cluster.REST, envtest.CRDInstallOptions{Paths: dirs, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond})
	return cluster, err
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
