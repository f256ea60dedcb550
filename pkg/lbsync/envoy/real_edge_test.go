package envoy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// edge is a real Envoy that gets its configuration from an xDS server in this process.
type edge struct {
	t     *testing.T
	cache cachev3.SnapshotCache
	admin string
	// loads are the versions of the load assignments last sent, updates how often they changed.
	loads   map[string]string
	updates map[string]int
	mu      sync.Mutex
	out     bytes.Buffer // standard output: access logs
	err     bytes.Buffer
}

const bootstrap = `
node: {id: test, cluster: test}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
layered_runtime: {layers: [{name: static, static_layer: {re2.max_program_size.error_level: 100000}}]}
`

type writer struct {
	e *edge
	b *bytes.Buffer
}

func (w writer) Write(p []byte) (int, error) {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	return w.b.Write(p)
}

func startEdge(t *testing.T) *edge {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an Envoy: run without -short")
	}
	program, err := install.Envoy(t.Context(), io.Discard)
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
	e := &edge{t: t, loads: map[string]string{}, updates: map[string]int{}, cache: cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(context.Background(), e.cache, nil))
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(server.Stop)
	dir := t.TempDir()
	config := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, bootstrap, socket.Addr().(*net.TCPAddr).Port), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(dir, "admin")
	cmd := exec.Command(program, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--file-flush-interval-msec", "50", "--admin-address-path", admin, "-l", "warn")
	cmd.Stdout, cmd.Stderr = writer{e, &e.out}, writer{e, &e.err}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(e.err.String(), e.out.String())
		}
	})
	e.wait("admin address", func() bool {
		address, _ := os.ReadFile(admin)
		e.admin = string(address)
		return e.admin != ""
	})
	return e
}

func (e *edge) wait(what string, done func() bool) {
	e.t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	e.t.Fatalf("waited for %s in vain", what)
}

// apply sends a program with its assignments and waits until Envoy has it.
func (e *edge) apply(p lbsync.Program, assignments ...lbsync.LoadAssignment) {
	e.t.Helper()
	resources := envoy.Translate(p)
	for _, f := range resources.Faults {
		e.t.Errorf("fault: %s", f)
	}
	snapshot := &cachev3.Snapshot{}
	set := func(kind types.ResponseType, all []envoy.Resource) (version string) {
		var out []types.Resource
		content := fnv.New64()
		for _, r := range all {
			m, err := r.Body.UnmarshalNew()
			if err != nil {
				e.t.Fatal(err)
			}
			out = append(out, m)
			fmt.Fprint(content, r.Name, r.Version)
		}
		version = fmt.Sprintf("%d-%x", kind, content.Sum64())
		snapshot.Resources[kind] = cachev3.NewResources(version, out)
		return fmt.Sprintf(`"version_info": "%s"`, version)
	}
	var loads []envoy.Resource
	for _, a := range assignments {
		r, err := envoy.LoadAssignment(a)
		if err != nil {
			e.t.Fatal(err)
		}
		loads = append(loads, r)
	}
	listeners := set(types.Listener, resources.Listeners)
	routes := set(types.Route, resources.Routes)
	set(types.Cluster, resources.Clusters)
	set(types.Secret, resources.Secrets)
	set(types.Endpoint, loads)
	if err := e.cache.SetSnapshot(context.Background(), "test", snapshot); err != nil {
		e.t.Fatal(err)
	}
	e.wait("all resources", func() bool {
		dump := e.get("/config_dump")
		if _, refused, found := strings.Cut(dump, "error_state"); found {
			e.t.Fatalf("refused: %.600s", refused)
		}
		return strings.Count(dump, listeners) >= len(resources.Listeners) && strings.Count(dump, routes) >= len(resources.Routes) &&
			!strings.Contains(dump, "warming_state")
	})
	e.awaitLoads(loads)
	for _, l := range p.Listeners {
		e.wait("the socket", func() bool {
			conn, err := net.Dial("tcp", netip.AddrPortFrom(l.Address, l.Port).String())
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}

// awaitLoads waits until Envoy has taken the load assignments that are new.
func (e *edge) awaitLoads(loads []envoy.Resource) {
	e.t.Helper()
	for _, r := range loads {
		if e.loads[r.Name] == r.Version {
			continue
		}
		e.loads[r.Name] = r.Version
		e.updates[r.Name]++
		e.wait("endpoints", func() bool {
			n := 0
			_, stat, _ := strings.Cut(e.get("/stats?filter=^cluster."+r.Name+".update_success$"), ": ")
			_, _ = fmt.Sscan(stat, &n)
			return n >= e.updates[r.Name]
		})
	}
}

func (e *edge) get(path string) string {
	response, err := http.Get("http://" + e.admin + path)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// log returns what Envoy wrote to standard output.
func (e *edge) log() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.String()
}

// backend answers with what it received.
func backend(t *testing.T, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-from-backend", "kept")
		for header := range r.Header { // mirrored requests, too
			if strings.HasPrefix(header, "X-Envoy-Retry") {
				t.Errorf("backend %s got %s", name, header)
			}
		}
		fmt.Fprintf(w, "%s %s %s host=%s", name, r.Method, r.URL.RequestURI(), r.Host)
		for _, h := range []string{"X-Set", "X-Add", "X-Remove", "X-Scratch", "X-Crossway-Scope"} {
			if v, found := r.Header[h]; found {
				fmt.Fprintf(w, " %s=%s", strings.ToLower(h), strings.Join(v, "+"))
			}
		}
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func importNamed(name string) fleet.Backend {
	return fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: name}}
}

// serve is one assignment with one backend that one address answers.
func serve(key string, address netip.AddrPort) (model.Assignment, lbsync.LoadAssignment) {
	return model.Assignment{Key: key, Backends: []model.WeightedBackend{{Backend: importNamed(key), Port: 80, Weight: 1}}},
		lbsync.LoadAssignment{Key: key, Localities: []lbsync.Locality{{Backend: importNamed(key), Cluster: "us-west",
			Place: fleet.Place{Region: "us"}, Weight: traffic.TotalParts, Endpoints: []netip.AddrPort{address}}}}
}

// Ports for Envoys are below those that the kernel gives to whoever asks for any (from 32768 on), which other tests may do
// before an Envoy listens. Each run begins elsewhere.
const lowestPort, manyPorts = 10_000, 20_000

var (
	firstPort = rand.Uint32N(manyPorts)
	portsUsed atomic.Uint32
)

func freePort(t *testing.T) uint16 {
	for range manyPorts {
		port := uint16(lowestPort + (firstPort+portsUsed.Add(1))%manyPorts)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func ptr[T any](v T) *T { return &v }

func httpListener(port uint16, hosts ...model.VirtualHost) lbsync.Listener {
	return lbsync.Listener{Address: netip.MustParseAddr("127.0.0.1"), Listener: model.Listener{
		Gateway: fleet.ObjectName{Namespace: "infra", Name: "shared"}, Port: port, Protocol: model.HTTP,
		Chains: []model.Chain{{Name: "http", Hosts: hosts}}}}
}

func prefix(path string) model.Match {
	return model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: path}}
}

func to(key string) *model.Forward {
	return &model.Forward{Targets: []model.Target{{Assignment: key, Weight: 1}}}
}

// ask sends one request without the client's own ideas about it, and returns the status and the answer or Location.
func ask(t *testing.T, port uint16, method, host, path, header string) string {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if header != "" {
		header += "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nhost: %s\r\ncontent-length: 0\r\nconnection: close\r\n%s\r\n", method, path, host, header)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, _ := io.ReadAll(response.Body)
	body := string(content)
	if location := response.Header.Get("location"); location != "" {
		body = location
	}
	if response.Header.Get("x-from-backend") != "" && path == "/headers" {
		body += " (response header not removed)"
	}
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}
