package clients

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// edge is an Envoy that serves each backend on two ports of one Gateway.
type edge struct {
	ca    string // file with the certificate of the ports with TLS
	ports map[string]ports
}

type ports struct{ plain, tls uint16 }

// url of a backend, as a client writes it.
func (e *edge) url(scheme, backend, path string) string {
	if scheme == "https" {
		return fmt.Sprintf("https://localhost:%d%s", e.ports[backend].tls, path)
	}
	return fmt.Sprintf("http://127.0.0.1:%d%s", e.ports[backend].plain, path)
}

const pool = "us"

// startEdge runs an edge for backends until the test ends.
func startEdge(t *testing.T, tools install.Clients, backends []backend) *edge {
	t.Helper()
	e := &edge{ports: map[string]ports{}}
	dir := t.TempDir()
	in := input(t, e, backends, certificate(t, e, dir))
	result := gateway.Build(in)
	for _, report := range gateway.Report(result, gateway.Progress{}) {
		for _, parent := range report.Parents {
			for _, c := range parent.Conditions {
				if c.Status != metav1.ConditionTrue {
					t.Fatalf("%s %s: %s=%s %s", report.Ref.Kind, report.Ref.Name, c.Type, c.Status, c.Message)
				}
			}
		}
	}
	socket := listen(t)
	cache := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)
	testkit.Must(t, cache.SetSnapshot(t.Context(), "battery", snapshot(t, result.Model, backends)))
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(context.WithoutCancel(t.Context()), cache, nil))
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(server.Stop)

	bootstrap := filepath.Join(dir, "bootstrap.yaml")
	testkit.Must(t, os.WriteFile(bootstrap, bootstrapOf(t, tools.Helm, dir, uint16(socket.Addr().(*net.TCPAddr).Port)), 0o600))
	start(t, "envoy", exec.Command(tools.Envoy, "--config-path", bootstrap, "--service-node", "battery", "--service-cluster", pool,
		"--disable-hot-restart", "--ignore-unknown-dynamic-fields", "--concurrency", "2", "--log-level", "error"))
	for _, p := range e.ports {
		awaitPort(t, p.plain)
		awaitPort(t, p.tls)
	}
	return e
}

// input is a Gateway with two listeners for each backend, a route to it, and nothing else.
func input(t *testing.T, e *edge, backends []backend, secret corev1.Secret) gateway.Input {
	var gatewayOf gatewayv1.Gateway
	object(t, `{metadata: {namespace: shop, name: battery, generation: 1}, spec: {gatewayClassName: crossway}}`, &gatewayOf)
	in := gateway.Input{Secrets: []corev1.Secret{secret}, GatewayClasses: make([]gatewayv1.GatewayClass, 1), Pools: make([]v1alpha1.EdgePool, 1)}
	object(t, `{metadata: {name: crossway}, spec: {controllerName: crossway.dev/gateway}}`, &in.GatewayClasses[0])
	object(t, `{metadata: {name: us}, spec: {region: us, addresses: [{cidr: 127.0.0.0/24}]},
		status: {allocations: [{gateway: {namespace: shop, name: battery}, address: 127.0.0.1}]}}`, &in.Pools[0])
	for _, b := range backends {
		e.ports[b.name] = ports{freePort(t), freePort(t)}
		var listeners []gatewayv1.Listener
		object(t, fmt.Sprintf(`[{name: %[1]s, protocol: HTTP, port: %[2]d},
			{name: %[1]s-tls, protocol: HTTPS, port: %[3]d, tls: {certificateRefs: [{name: battery}]}}]`, b.name, e.ports[b.name].plain, e.ports[b.name].tls), &listeners)
		gatewayOf.Spec.Listeners = append(gatewayOf.Spec.Listeners, listeners...)
		var route gatewayv1.HTTPRoute
		object(t, fmt.Sprintf(`{metadata: {namespace: shop, name: %[1]s, generation: 1}, spec: {
			parentRefs: [{name: battery, sectionName: %[1]s}, {name: battery, sectionName: %[1]s-tls}],
			rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: %[1]s, port: 80}]}]}}`, b.name), &route)
		in.Routes = append(in.Routes, gateway.FromHTTPRoute(&route))
		var service v1alpha1.FleetService
		object(t, fmt.Sprintf(`{metadata: {namespace: crossway-fleet, name: %[1]s.shop}, spec: {service: {namespace: shop, name: %[1]s}, type: ClusterSetIP,
			ports: [{name: web, protocol: TCP, port: 80, appProtocol: %[2]q}], clusters: [{name: us-west, sequence: 1}]}}`, b.name, b.appProtocol), &service)
		in.Imports = append(in.Imports, service)
	}
	in.Gateways = []gatewayv1.Gateway{gatewayOf}
	return in
}

func object(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "\t", " ")), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// snapshot is what an edge gets for a model: each backend has one endpoint, nearby.
func snapshot(t *testing.T, m model.Model, backends []backend) *cachev3.Snapshot {
	t.Helper()
	resources := envoy.Translate(lbsync.ProgramFor(m, lbsync.PoolRef{Pool: pool, Region: pool}))
	for _, fault := range resources.Faults {
		t.Errorf("fault: %s", fault)
	}
	var loads []envoy.Resource
	for _, a := range m.Assignments {
		name := a.Backends[0].Backend
		k := slices.IndexFunc(backends, func(b backend) bool { return b.name == name.Name.Name })
		r, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: a.Key, Localities: []lbsync.Locality{{Backend: name, Cluster: "us-west",
			Place: fleet.Place{Region: pool}, Weight: traffic.TotalParts, Endpoints: []netip.AddrPort{backends[k].address}}}})
		testkit.Must(t, err)
		loads = append(loads, r)
	}
	s := &cachev3.Snapshot{}
	for kind, all := range map[types.ResponseType][]envoy.Resource{types.Listener: resources.Listeners, types.Route: resources.Routes,
		types.Cluster: resources.Clusters, types.Secret: resources.Secrets, types.Endpoint: loads} {
		var out []types.Resource
		for _, r := range all {
			m, err := r.Body.UnmarshalNew()
			testkit.Must(t, err)
			out = append(out, m)
		}
		s.Resources[kind] = cachev3.NewResources("1", out)
	}
	s.Resources[types.Runtime] = cachev3.NewResources("1", []types.Resource{&runtimev3.Runtime{Name: "hub"}})
	testkit.Must(t, s.ConstructVersionMap())
	return s
}

// bootstrapOf is the chart's bootstrap, with a hub that speaks no TLS.
func bootstrapOf(t *testing.T, helm, dir string, hub uint16) []byte {
	t.Helper()
	out, err := exec.Command(helm, "template", "crossway-edge", "../../charts/edge", "--show-only", "templates/bootstrap.yaml", "--kube-version", install.KubernetesVersion,
		"--set", fmt.Sprintf("pool=us,region=us,zone=us-a,hub.address=127.0.0.1,hub.port=%d", hub)).Output()
	if err != nil {
		t.Fatalf("render the chart: %v\n%s", err, out)
	}
	var config corev1.ConfigMap
	testkit.Must(t, yaml.Unmarshal(out, &config))
	text := strings.NewReplacer("/run/crossway", dir, "@POD_IP@", "127.0.0.1").Replace(config.Data["bootstrap.yaml"])
	var bootstrap map[string]any
	testkit.Must(t, yaml.Unmarshal([]byte(text), &bootstrap))
	static := bootstrap["static_resources"].(map[string]any)
	delete(static["clusters"].([]any)[0].(map[string]any), "transport_socket")
	delete(static, "listeners") // of statistics
	encoded, err := yaml.Marshal(bootstrap)
	testkit.Must(t, err)
	return encoded
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	return l
}

func freePort(t *testing.T) uint16 {
	l := listen(t)
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func awaitPort(t *testing.T, port uint16) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("port %d", port), func() bool {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// output is what a program has written; the end of it is shown if the test fails.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) lines(having string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(strings.Split(o.text.String(), "\n"), func(line string) bool { return !strings.Contains(line, having) })
}

// start runs a server until the test ends.
func start(t *testing.T, name string, cmd *exec.Cmd) *output {
	t.Helper()
	o := &output{}
	cmd.Stdout, cmd.Stderr = o, o
	cmd.SysProcAttr = ownGroup
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		killGroup(cmd)
		_ = cmd.Wait()
		if t.Failed() {
			lines := o.lines("")
			t.Logf("the end of the output of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
	return o
}
