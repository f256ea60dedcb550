package charts

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// edge is an Envoy on this machine, started by the chart's own script.
type edge struct {
	t    *testing.T
	dir  string // the rendered files
	path string // PATH with Envoy
	ca   registration.Issuer
	pool string // the UID of its EdgePool
}

// newEdge writes what the chart mounts into a directory: the ConfigMap, with
// its paths changed to the directory, and the certificate's Secret.
func newEdge(t *testing.T, values string) edge {
	t.Helper()
	p, err := programs()
	testkit.Must(t, err)
	dir := t.TempDir()
	var config corev1.ConfigMap
	rendered := render(t, "edge", values)
	for _, o := range objects(t, rendered) {
		if o.GetKind() == "ConfigMap" {
			into(t, o, &config)
		}
	}
	here := strings.NewReplacer("/etc/crossway/edge", dir, "/etc/crossway/tls", dir+"/tls", "/run/crossway", dir)
	for name, text := range config.Data {
		write(t, filepath.Join(dir, strings.Replace(name, "bootstrap", "mounted", 1)), here.Replace(text))
	}
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	e := edge{t: t, dir: dir, path: filepath.Dir(p.Envoy) + ":" + os.Getenv("PATH"),
		ca: registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}}
	e.mountCertificate("us-a")
	return e
}

func write(t *testing.T, file, text string) {
	t.Helper()
	testkit.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	testkit.Must(t, os.WriteFile(file, []byte(text), 0o600))
}

// mountCertificate signs a certificate and writes the Secret's files as a
// kubelet does: one rename of a link changes them all.
func (e edge) mountCertificate(zone string) {
	e.t.Helper()
	pair, err := registration.NewEdgeCertificate(e.ca, registration.EdgeIdentity{
		Pool: "us", Region: "us", Zone: zone, PoolUID: e.pool, Credential: testkit.CredentialID}, time.Hour)
	testkit.Must(e.t, err)
	mount := filepath.Join(e.dir, "tls")
	for name, data := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": e.ca.CA.Certificate} {
		write(e.t, filepath.Join(mount, "..of-"+zone, name), string(data))
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)) // there since the first
	}
	next := filepath.Join(mount, "..data_tmp")
	testkit.Must(e.t, os.Symlink("..of-"+zone, next))
	testkit.Must(e.t, os.Rename(next, filepath.Join(mount, "..data")))
}

// bootstrap is the file that the chart mounts; the script writes its own.
func (e edge) bootstrap() string { return filepath.Join(e.dir, "mounted.yaml") }

// command runs the chart's script with these arguments.
func (e edge) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(e.dir, "edge.sh")}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+e.path, "CROSSWAY_EDGE_RUN="+e.dir)
	return cmd
}

// start runs Envoy until the test ends.
func (e edge) start(bootstrap string, args ...string) *exec.Cmd {
	e.t.Helper()
	all := append([]string{"run", bootstrap, "--disable-hot-restart", "--log-level", "error", "--concurrency", "1"}, args...)
	cmd := e.command(context.WithoutCancel(e.t.Context()), all...)
	cmd.Stderr = os.Stderr
	testkit.Must(e.t, cmd.Start())
	e.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// Envoy itself takes the bootstrap, with each of the values that shape it.
func TestEnvoyTakesTheBootstrap(t *testing.T) {
	for _, values := range []string{
		"", "metrics.enabled=false", "hub.address=hub.example.com,hub.port=443,hub.serverName=hub.example.com",
		"overload.maxHeapMiB=4096,overload.maxConnections=1000000", "pool=no,region=on,zone=y",
	} {
		e := newEdge(t, values)
		cmd := e.command(t.Context(), "run", e.bootstrap(), "--mode", "validate", "--service-node", "a", "--service-cluster", "b", "--disable-hot-restart")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "OK") {
			t.Errorf("%s: %v\n%s", values, err, out)
		}
		for _, word := range []string{"rejected", "Deprecated", "critical"} {
			if strings.Contains(string(out), word) {
				t.Errorf("%s: Envoy says %s:\n%s", values, word, out)
			}
		}
	}
}

// Without a hub an edge is not ready: a rollout then keeps the edges that still
// have their configuration.
func TestEdgeIsNotReadyWithoutHub(t *testing.T) {
	t.Parallel()
	e := newEdge(t, "metrics.enabled=false,hub.address=127.0.0.1,hub.port=1")
	e.start(e.bootstrap(), "--service-node", "a", "--service-cluster", "us")
	testkit.Eventually(t, "the admin interface answers", func() bool {
		out, _ := e.command(t.Context(), "ask", "GET", "/server_info").Output()
		return strings.Contains(string(out), "INITIALIZING")
	})
	// By default, Envoy gives up waiting for clusters after 15 s and for
	// listeners after 15 more.
	for end := time.Now().Add(32 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if err := e.command(t.Context(), "ready").Run(); err == nil {
			t.Fatal("ready without configuration")
		}
	}
}

// Only an Envoy whose main thread is stuck fails the liveness probe, not one that
// has no hub.
func TestOnlyAStuckEdgeIsRestarted(t *testing.T) {
	t.Parallel()
	e := newEdge(t, "metrics.enabled=false,hub.address=127.0.0.1,hub.port=1")
	cmd := e.start(e.bootstrap(), "--service-node", "a", "--service-cluster", "us")
	alive := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		probe := e.command(ctx, "alive")
		probe.WaitDelay = time.Second
		return probe.Run()
	}
	testkit.Eventually(t, "an edge without a hub is alive", func() bool { return alive() == nil })
	if e.command(t.Context(), "ready").Run() == nil {
		t.Error("it is ready, too")
	}
	testkit.Must(t, cmd.Process.Signal(syscall.SIGSTOP))
	if alive() == nil {
		t.Error("an Envoy that does nothing is alive")
	}
	testkit.Must(t, cmd.Process.Signal(syscall.SIGCONT))
	testkit.Eventually(t, "it is alive again", func() bool { return alive() == nil })
}

// An edge presents its certificate to the hub and accepts only the hub's own. It
// uses a renewed certificate without a restart.
func TestEdgeAndHubKnowEachOther(t *testing.T) {
	e := newEdge(t, "metrics.enabled=false")
	hub, err := registration.NewServerCertificate(e.ca, []string{"crossway-hub.crossway-system.svc"})
	testkit.Must(t, err)
	stranger, err := registration.NewServerCertificate(e.ca, []string{"other.crossway-system.svc"})
	testkit.Must(t, err)
	var serving atomic.Pointer[registration.Pair]
	serving.Store(&stranger)
	seen := make(chan string, 100)
	port := serve(t, &serving, seen)

	bootstrap := e.bootstrap()
	text, err := os.ReadFile(bootstrap)
	testkit.Must(t, err)
	at := strings.NewReplacer("10.96.0.10", "127.0.0.1", "18000", strconv.Itoa(port))
	write(t, bootstrap, at.Replace(string(text)))
	e.start(bootstrap, "--service-node", "a", "--service-cluster", "us")

	next := func() string {
		select {
		case who := <-seen:
			return who
		case <-time.After(10 * time.Second):
			t.Fatal("the edge dials no more")
			return ""
		}
	}
	if who := next(); !strings.Contains(who, "refused") {
		t.Errorf("the edge believes another's certificate: %s", who)
	}
	serving.Store(&hub)
	testkit.Eventually(t, "the hub knows the edge of us-a", func() bool { return next() == "spiffe://crossway/edge/us/us/us-a" })
	e.mountCertificate("us-b")
	testkit.Eventually(t, "the hub knows the edge of us-b", func() bool { return next() == "spiffe://crossway/edge/us/us/us-b" })
}

// serve is a hub that reads each edge's certificate and closes the connection.
func serve(t *testing.T, serving *atomic.Pointer[registration.Pair], seen chan<- string) (port int) {
	t.Helper()
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair := serving.Load()
			certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
			return &certificate, err
		},
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	testkit.Must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			seen <- who(t.Context(), c.(*tls.Conn))
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func who(ctx context.Context, c *tls.Conn) string {
	if err := c.HandshakeContext(ctx); err != nil {
		return "refused: " + err.Error()
	}
	id, err := registration.EdgeIdentityOf(c.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err.Error()
	}
	return id.String()
}

const lonely = `
node: {id: edge, cluster: edge}
admin: {address: {pipe: {path: %s/admin.sock}}, allow_paths: [{exact: /ready}, {prefix: /stats}, {prefix: /drain_listeners}, {exact: /healthcheck/fail}]}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          http_filters:
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config: {virtual_hosts: [{name: web, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
`

// Two edges share a port of one network. One of them drains while a client without
// retries sends requests. No request fails, and the edge has no connection in the end.
func TestEdgeLeavesWithoutLosingARequest(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	const port = 8080
	edges, envoys := make([]edge, 2), make([]*exec.Cmd, 2)
	for i := range edges {
		edges[i] = newEdge(t, "")
		bootstrap := filepath.Join(edges[i].dir, "lonely.yaml")
		write(t, bootstrap, fmt.Sprintf(lonely, edges[i].dir, port))
		envoys[i] = edges[i].start(bootstrap, "--drain-time-s", "1", "--drain-strategy", "immediate")
		testkit.Eventually(t, "ready", func() bool { return edges[i].command(t.Context(), "ready").Run() == nil })
	}

	stop, done := make(chan struct{}), make(chan result)
	const clients = 8
	for range clients {
		go func() { done <- post(fmt.Sprintf("http://127.0.0.1:%d/", port), stop) }()
	}
	testkit.Eventually(t, "the edge that leaves has connections", func() bool {
		n, _ := edges[0].busy()
		return n > 0
	})
	if out, err := edges[0].command(t.Context(), "drain", "0", "1", "10").CombinedOutput(); err != nil {
		t.Fatalf("drain: %v\n%s", err, out)
	}
	if n, err := edges[0].busy(); n != 0 || err != nil {
		t.Errorf("%d connections after the drain, %v", n, err)
	}
	before := edges[0].connections()
	time.Sleep(300 * time.Millisecond) // the clients go on, about 1000 requests
	if after := edges[0].connections(); after != before {
		t.Errorf("took connections after the drain: %s, then %s", before, after)
	}
	if edges[0].command(t.Context(), "ready").Run() == nil {
		t.Error("the edge that left says that it is ready")
	}
	if err := edges[1].command(t.Context(), "ready").Run(); err != nil {
		t.Error("its sibling left with it")
	}
	testkit.Must(t, envoys[0].Process.Signal(syscall.SIGTERM))
	_ = envoys[0].Wait()
	close(stop)
	var sum result
	for range clients {
		r := <-done
		sum.ok, sum.failed = sum.ok+r.ok, append(sum.failed, r.failed...)
	}
	if len(sum.failed) > 0 || sum.ok < 100 {
		t.Errorf("%d requests answered, %d lost: %v", sum.ok, len(sum.failed), sum.failed)
	}
}

func (e edge) busy() (int, error) {
	out, err := e.command(e.t.Context(), "busy").Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// connections is how many connections of clients Envoy has accepted so far.
func (e edge) connections() string {
	out, err := e.command(e.t.Context(), "ask", "GET", "/stats?filter=http.web.downstream_cx_total").Output()
	_, count, found := strings.Cut(string(out), "http.web.downstream_cx_total: ")
	if err != nil || !found {
		e.t.Fatalf("no count of connections: %v %s", err, out)
	}
	return strings.Fields(count)[0]
}

type result struct {
	ok     int
	failed []error
}

// post sends requests with a body over one connection at a time. net/http never
// repeats such a request by itself.
func post(url string, stop <-chan struct{}) result {
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var r result
	for {
		select {
		case <-stop:
			return r
		case <-time.After(5 * time.Millisecond):
		}
		answer, err := client.Post(url, "text/plain", io.NopCloser(strings.NewReader("x")))
		if err != nil {
			r.failed = append(r.failed, err)
			continue
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		r.ok++
	}
}

// inOwnNetwork runs the calling test again in a network namespace set up like
// an edge's node, and returns true only there. Without tcp_migrate_req the
// kernel resets what waits to be accepted when one of two listeners closes.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if !testkit.InOwnNetwork(t) {
		return false
	}
	testkit.SetKernel(t, "net.ipv4.tcp_migrate_req", "1")
	return true
}

// What looks may look; what stops or changes an edge is closed.
func TestEdgeAdminOnlyShows(t *testing.T) {
	e := newEdge(t, "metrics.enabled=false,hub.address=127.0.0.1,hub.port=1")
	e.start(e.bootstrap(), "--service-node", "a", "--service-cluster", "us")
	status := func(method, path string) string {
		out, err := e.command(t.Context(), "ask", method, path).CombinedOutput()
		if err == nil {
			return "200"
		}
		_, rest, _ := strings.Cut(string(out), ": HTTP/1.1 ")
		code, _, _ := strings.Cut(rest, " ")
		return code
	}
	testkit.Eventually(t, "the admin interface answers", func() bool { return status("GET", "/stats?usedonly") == "200" })
	for _, path := range []string{"/config_dump?resource=dynamic_active_clusters", "/clusters", "/stats/prometheus", "/listeners", "/server_info"} {
		if got := status("GET", path); got != "200" {
			t.Errorf("%s answers %q", path, got)
		}
	}
	for _, path := range []string{"/quitquitquit", "/logging?level=trace", "/runtime_modify?a=b", "/cpuprofiler?enable=y", "/reset_counters"} {
		if got := status("POST", path); got != "403" {
			t.Errorf("%s answers %q", path, got)
		}
	}
}

// The pod's arguments and its grace period fit each other.
func TestEdgePod(t *testing.T) {
	pod := func(values string) corev1.PodSpec {
		var d appsv1.Deployment
		into(t, find(t, render(t, "edge", values), "Deployment", "crossway-edge-us"), &d)
		return d.Spec.Template.Spec
	}
	usual := pod("drain.announceSeconds=1,drain.seconds=2,drain.waitSeconds=3")
	if got := *usual.TerminationGracePeriodSeconds; got <= 1+2+3 {
		t.Errorf("%d s of grace are not more than the drain takes", got)
	}
	if got := strings.Join(usual.Containers[0].Lifecycle.PreStop.Exec.Command, " "); !strings.HasSuffix(got, "edge.sh drain 1 2 3") {
		t.Errorf("preStop runs %s", got)
	}
	if !usual.HostNetwork || usual.NodeSelector["topology.kubernetes.io/region"] != "us" {
		t.Errorf("not on the network of a node of its region: %v", usual.NodeSelector)
	}
	for _, c := range usual.Containers {
		for _, p := range c.Ports {
			t.Errorf("port %d is declared: on a node's network no second edge could start beside it", p.ContainerPort)
		}
	}
	for _, values := range []string{"hostNetwork=true", "hostNetwork=false"} {
		p := pod(values)
		if added := p.Containers[0].SecurityContext.Capabilities.Add; !*p.SecurityContext.RunAsNonRoot || len(added) > 0 {
			t.Errorf("%s: not root is %v, capabilities %v", values, *p.SecurityContext.RunAsNonRoot, added)
		}
	}
	if len(usual.InitContainers) > 0 {
		t.Errorf("by default the pod has init containers: %v", usual.InitContainers)
	}
	limited := pod("sourceLimit.gateways={198.18.1.0/24}")
	if c := limited.InitContainers[0].SecurityContext.Capabilities; !slices.Equal(c.Add, []corev1.Capability{"NET_ADMIN"}) || !slices.Equal(c.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("who loads the limit by source has capabilities %+v", c)
	}
	if added := limited.Containers[0].SecurityContext.Capabilities.Add; !*limited.SecurityContext.RunAsNonRoot || len(added) > 0 {
		t.Errorf("with a limit by source Envoy is root, or has %v", added)
	}
	if p := pod("runAsRoot=true"); *p.SecurityContext.RunAsUser != 0 || !slices.Equal(p.Containers[0].SecurityContext.Capabilities.Add, []corev1.Capability{"NET_BIND_SERVICE"}) {
		t.Errorf("runAsRoot: %+v", p.SecurityContext)
	}
}

// An Envoy that gets SIGTERM after its drain ends at once.
func TestEdgeIsEnvoyItself(t *testing.T) {
	e := newEdge(t, "metrics.enabled=false,hub.address=127.0.0.1,hub.port=1")
	cmd := e.start(e.bootstrap(), "--service-node", "a", "--service-cluster", "us")
	testkit.Eventually(t, "the script has become Envoy", func() bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
		return filepath.Base(exe) == "envoy"
	})
	testkit.Eventually(t, "the admin interface answers", func() bool {
		return e.command(t.Context(), "ask", "GET", "/server_info").Run() == nil
	})
	testkit.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	if state, err := cmd.Process.Wait(); err != nil || !state.Exited() || state.ExitCode() != 0 {
		t.Errorf("ended with %v, %v", state, err)
	}
}
