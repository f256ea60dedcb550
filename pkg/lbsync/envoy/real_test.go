package envoy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
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
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
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
	set(types.ScopedRoute, resources.ScopedRoutes)
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
		fmt.Fprintf(w, "%s %s %s host=%s", name, r.Method, r.URL.RequestURI(), r.Host)
		for _, h := range []string{"X-Set", "X-Add", "X-Remove", "X-Crossway-Scope"} {
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
			Place: fleet.Place{Region: "us"}, Weight: lbsync.Whole, Endpoints: []netip.AddrPort{address}}}}
}

func freePort(t *testing.T) uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
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

func TestRulesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, blueLoad := serve("blue", backend(t, "blue"))
	green, greenLoad := serve("green", backend(t, "green"))
	gone, goneLoad := serve("gone", netip.MustParseAddrPort("127.0.0.1:1"))
	goneLoad.Localities, goneLoad.Drop = nil, lbsync.Whole
	origin := func(n int) model.Origin {
		return model.Origin{Route: fleet.ObjectName{Namespace: "site", Name: "home"}, Rule: n}
	}
	path := func(p string) *model.PathChange { return &model.PathChange{Full: &p} }
	swap := func(p string) *model.PathChange { return &model.PathChange{Prefix: &p} }
	rules := []model.Rule{
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathExact, Value: "/exact"}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: "/re/(foo|bar|baz)/[a-z0-9-]{1,63}"}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/m"}, Method: "POST"}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/h"}, Headers: []model.ValueMatch{{Name: "env", Value: "canary"}}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/q"}, Query: []model.ValueMatch{{Name: "a", Value: "b.*", Regex: true}}}, Forward: to("green")},
		{Match: prefix("/full"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: path(`/one\1`), Hostname: "other.example"}},
		{Match: prefix("/p"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/one")}},
		{Match: prefix("/root"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/")}},
		{Match: prefix("/ts/"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/two/")}},
		{Match: prefix("/headers"), Forward: to("blue"),
			Request:  model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: "100% %REQ(host)%"}}, Add: []model.Header{{Name: "x-add", Value: "b"}}, Remove: []string{"x-remove"}},
			Response: model.HeaderChanges{Remove: []string{"x-from-backend"}}},
		{Match: prefix("/r1"), Redirect: &model.Redirect{Scheme: "https", StatusCode: 301}},
		{Match: prefix("/r2"), Redirect: &model.Redirect{Hostname: "else.example", Path: swap("/new"), StatusCode: 302}},
		{Match: prefix("/r3"), Redirect: &model.Redirect{Hostname: "else.example", Scheme: "https", Path: path("/all"), StatusCode: 308}},
		{Match: prefix("/r4"), Redirect: &model.Redirect{Port: 8443, StatusCode: 303}},
		{Match: prefix("/teapot"), Respond: &model.Respond{StatusCode: 418, Body: "short"}},
		{Match: prefix("/invalid"), Forward: &model.Forward{Targets: []model.Target{{Weight: 1}}}},
		{Match: prefix("/part"), Forward: &model.Forward{Targets: []model.Target{{Weight: 1}, {Assignment: "blue", Weight: 0}, {Assignment: "green", Weight: 0}}}},
		{Match: prefix("/gone"), Forward: to("gone")},
		{Match: prefix("/own"), Forward: &model.Forward{Targets: []model.Target{{Assignment: "blue", Weight: 1, Request: model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: "mine"}}}}}}},
		{Match: prefix("/"), Forward: to("blue"), Mirrors: []model.Mirror{{Assignment: "green", Numerator: 1, Denominator: 2}, {Numerator: 1, Denominator: 1}}, Timeout: ptr(3 * time.Second), BackendTimeout: ptr(time.Second)},
	}
	for i := range rules {
		rules[i].Origin = origin(i)
	}
	port := freePort(t)
	l := httpListener(port,
		model.VirtualHost{Hostname: "*.wild.example", Rules: []model.Rule{{Match: prefix("/"), Forward: to("green")}}},
		model.VirtualHost{Hostname: "a.wild.example"},
		model.VirtualHost{Hostname: "a.example", Rules: rules})
	l.Chains[0].Misdirected = []string{"b.example", "a.example"}
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{blue, gone, green}}, blueLoad, goneLoad, greenLoad)

	for _, c := range []struct{ method, host, path, header, want string }{
		{"GET", "a.example", "/", "", "200 blue GET / host=a.example"},
		{"POST", "a.example", "/x", "", "200 blue POST /x host=a.example"},
		{"GET", "A.Example:" + fmt.Sprint(port), "/", "", "200 blue GET / host=A.Example:" + fmt.Sprint(port)},
		{"GET", "a.example.", "/", "", "200 blue GET / host=a.example"},
		{"GET", "b.example", "/", "", "421 "},
		{"GET", "c.example", "/", "", "404 "},
		{"GET", "x.y.wild.example", "/", "", "200 green GET / host=x.y.wild.example"},
		{"GET", "a.wild.example", "/", "", "404 "},
		{"GET", "a.example", "/exact", "", "200 green GET /exact host=a.example"},
		{"GET", "a.example", "/exact/", "", "200 blue GET /exact/ host=a.example"},
		{"GET", "a.example", "/re/foo/a-b", "", "200 green GET /re/foo/a-b host=a.example"},
		{"GET", "a.example", "/re/foo/a-b/c", "", "200 blue GET /re/foo/a-b/c host=a.example"},
		{"GET", "a.example", "/m", "", "200 blue GET /m host=a.example"},
		{"POST", "a.example", "/m", "", "200 green POST /m host=a.example"},
		{"GET", "a.example", "/h", "env: canary", "200 green GET /h host=a.example"},
		{"GET", "a.example", "/h", "env: other", "200 blue GET /h host=a.example"},
		{"GET", "a.example", "/q?a=bc", "", "200 green GET /q?a=bc host=a.example"},
		{"GET", "a.example", "/q?a=cb", "", "200 blue GET /q?a=cb host=a.example"},
		{"GET", "a.example", "/full/x?q=1", "", `200 blue GET /one%5C1?q=1 host=other.example`},
		{"GET", "a.example", "/p", "", "200 blue GET /one host=a.example"},
		{"GET", "a.example", "/p/", "", "200 blue GET /one/ host=a.example"},
		{"GET", "a.example", "/p/x?q=1", "", "200 blue GET /one/x?q=1 host=a.example"},
		{"GET", "a.example", "/pxyz", "", "200 blue GET /pxyz host=a.example"},
		{"GET", "a.example", "/root/x", "", "200 blue GET /x host=a.example"},
		{"GET", "a.example", "/root", "", "200 blue GET / host=a.example"},
		{"GET", "a.example", "/ts/a", "", "200 blue GET /two/a host=a.example"},
		{"GET", "a.example", "//p//x", "", "200 blue GET /one/x host=a.example"},
		{"GET", "a.example", "/headers", "x-add: a", "200 blue GET /headers host=a.example x-set=100% %REQ(host)% x-add=a+b"},
		{"GET", "a.example", "/headers", "x-remove: a", "200 blue GET /headers host=a.example x-set=100% %REQ(host)% x-add=b"},
		{"GET", "a.example", "/r1/x?q=1", "", "301 https://a.example:443/r1/x?q=1"},
		{"GET", "a.example:99", "/r2/x", "", fmt.Sprintf("302 http://else.example:%d/new/x", port)},
		{"GET", "a.example:99", "/r3/x", "", "308 https://else.example/all"},
		{"GET", "a.example:99", "/r4/x", "", "303 http://a.example:8443/r4/x"},
		{"GET", "a.example", "/teapot", "", "418 short"},
		{"GET", "a.example", "/invalid", "", "500 "},
		{"GET", "a.example", "/part", "", "500 "},
		{"GET", "a.example", "/gone", "", "503 "},
		{"GET", "a.example", "/own", "x-set: theirs", "200 blue GET /own host=a.example x-set=mine"},
		{"GET", "a.example", "/x%2fy", "", "307 "},
	} {
		got := ask(t, port, c.method, c.host, c.path, c.header)
		if c.want != got && !(strings.HasSuffix(c.want, " ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s %s%s [%s]\n got %s\nwant %s", c.method, c.host, c.path, c.header, got, c.want)
		}
	}
	for _, words := range [][]string{
		{`"path":"/exact"`, `"route":"site/home/0/0"`, `"assignment":"green"`, `"member":"us-west/shop/green"`, `"reason":"via_upstream"`},
		{`"path":"/gone"`, `"route":"site/home/17/0"`, `"assignment":"gone"`, `"flags":"UDO"`, `"reason":"unconditional_drop_overload"`},
	} {
		e.wait(fmt.Sprint("access log ", words), func() bool {
			for line := range strings.Lines(e.log()) {
				if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
					return true
				}
			}
			return false
		})
	}
}

func TestTLSOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, load := serve("blue", backend(t, "blue"))
	a, b := certificate(t, "a.example"), certificate(t, "b.example")
	host := func(name string) []model.VirtualHost {
		return []model.VirtualHost{{Hostname: name, Rules: []model.Rule{{Match: prefix("/"), Forward: to("blue")}}}}
	}
	port := freePort(t)
	l := httpListener(port)
	l.Protocol = model.HTTPS
	l.Chains = []model.Chain{
		{Name: "a", ServerName: "a.example", Secrets: []string{a.Name}, Hosts: host("a.example"), Misdirected: []string{"*"}},
		{Name: "any", Secrets: []string{b.Name}, Hosts: host("b.example"), Misdirected: []string{"a.example"}},
		{Name: "broken", ServerName: "broken.example", Reject: true},
		{Name: "bare", ServerName: "bare.example", Hosts: host("bare.example")},
	}
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{blue}, Secrets: []model.Secret{a, b}}, load)
	for _, c := range []struct{ sni, host, want string }{
		{"a.example", "a.example", "a.example: 200"},
		{"a.example", "b.example", "a.example: 421"},
		{"other.example", "b.example", "b.example: 200"},
		{"other.example", "a.example", "b.example: 421"},
		{"other.example", "c.example", "b.example: 404"},
		{"broken.example", "b.example", "closed"},
		{"bare.example", "bare.example", "closed"},
	} {
		for _, version := range []string{"http/1.1", "h2"} {
			if got := askTLS(port, c.sni, c.host, version); got != c.want {
				t.Errorf("%s to SNI %s, host %s: %s, want %s", version, c.sni, c.host, got, c.want)
			}
		}
	}
}

// Many hosts: a RouteConfiguration each, found by name whatever its spelling.
func TestScopedRoutesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, load := serve("blue", backend(t, "blue"))
	green, greenLoad := serve("green", backend(t, "green"))
	var hosts []model.VirtualHost
	for k := range 60 {
		hosts = append(hosts, model.VirtualHost{Hostname: fmt.Sprintf("h%d.example", k), Rules: []model.Rule{{Match: prefix("/"), Forward: to("blue")}}})
	}
	hosts = append(hosts, model.VirtualHost{Hostname: "*.example"})
	port, other := freePort(t), freePort(t)
	l := httpListener(port, hosts...)
	l.Chains[0].Misdirected = []string{"elsewhere.example"}
	second := httpListener(other, slices.Clone(hosts)...)
	for k := range second.Chains[0].Hosts {
		second.Chains[0].Hosts[k].Rules = []model.Rule{{Match: prefix("/"), Forward: to("green")}}
	}
	second.Chains[0].Hosts = second.Chains[0].Hosts[:60]
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l, second}, Assignments: []model.Assignment{blue, green}}, load, greenLoad)
	for _, c := range []struct {
		port               uint16
		host, header, want string
	}{
		{port, "h7.example", "", "200 blue GET / host=h7.example"},
		{port, "H7.Example:99", "", "200 blue GET / host=H7.Example:99"},
		{port, "h7.example.", "", "200 blue GET / host=h7.example"},
		{port, "h7.example.:80", "", "200 blue GET / host=h7.example:80"},
		{port, "h99.example", "", "404 "},
		{port, "h99.example", "x-crossway-scope: infra/shared/" + fmt.Sprint(port) + "/h7.example", "404 "},
		{port, "elsewhere.example:1", "", "421 "},
		{port, "[::1]:80", "", "404 "},
		{other, "h7.example", "", "200 green GET / host=h7.example"},
	} {
		if got := ask(t, c.port, "GET", c.host, "/", c.header); got != c.want {
			t.Errorf("%s: %s, want %s", c.host, got, c.want)
		}
	}
}

// locality is one member's part of import store, answered at one address.
func locality(cluster string, weight uint32, address netip.AddrPort) lbsync.Locality {
	return lbsync.Locality{Backend: importNamed("store"), Cluster: fleet.ClusterName(cluster), Place: fleet.Place{Region: cluster},
		Weight: weight, Endpoints: []netip.AddrPort{address}}
}

// counted sends n requests one after the other and counts the answers by their first words.
func counted(t *testing.T, port uint16, method string, n int) map[string]int {
	answers := map[string]int{}
	for range n {
		words := strings.Fields(ask(t, port, method, "a.example", "/", ""))
		answers[strings.Join(words[:min(2, len(words))], " ")]++
	}
	return answers
}

// Shares are exact, a dead member costs nothing whatever the method (its connections are refused, so nothing was sent),
// a refuge takes over when all that have a share are dead, and a backend without endpoints keeps its part as 503.
func TestSharesAndFailureOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	west, east, dead := backend(t, "west"), backend(t, "east"), netip.MustParseAddrPort("127.0.0.1:1")
	port := freePort(t)
	p := lbsync.Program{
		Listeners:   []lbsync.Listener{httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})},
		Assignments: []model.Assignment{{Key: "store"}},
	}
	for _, c := range []struct {
		why        string
		localities []lbsync.Locality
		drop       uint32
		method     string
		want       map[string]int
	}{
		{"two thirds and one third, exactly", []lbsync.Locality{locality("a", 333_333, east), locality("b", 666_667, west)}, 0, "GET",
			map[string]int{"200 west": 200, "200 east": 100}},
		{"a refuge beside all of the shares gets nothing", []lbsync.Locality{locality("a", 1, east), locality("b", lbsync.Whole, west)}, 0, "GET",
			map[string]int{"200 west": 300}},
		{"half is dead", []lbsync.Locality{locality("a", 500_000, dead), locality("b", 500_000, west)}, 0, "POST",
			map[string]int{"200 west": 300}},
		{"all that has a share is dead", []lbsync.Locality{locality("a", 1, east), locality("b", lbsync.Whole, dead)}, 0, "GET",
			map[string]int{"200 east": 300}},
		{"no backend is left", nil, lbsync.Whole, "GET", map[string]int{"503 unconditional": 300}},
	} {
		e.apply(p, lbsync.LoadAssignment{Key: "store", Localities: c.localities, Drop: c.drop})
		got := counted(t, port, c.method, 300)
		for answer, n := range c.want {
			if d := got[answer] - n; d < -2 || d > 2 {
				t.Errorf("%s: %v, want %v", c.why, got, c.want)
			}
		}
	}
}

// HTTP/2 to the backend, probed over HTTP/2 too: with the wrong protocol every host would be unhealthy.
func TestHTTP2BackendOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	a, load := serve("h2", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.Protocol, a.HealthCheck = model.H2C, &model.HealthCheck{Interval: 200 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("h2")}}})}}, load)
	e.wait("a probe", func() bool { return strings.Contains(e.get("/clusters"), "health_flags::healthy") })
	time.Sleep(500 * time.Millisecond) // two probes
	if got := ask(t, port, "GET", "a.example", "/", ""); got != "200 HTTP/2.0" {
		t.Error(got)
	}
	if stats := e.get("/stats?filter=health_check"); !strings.Contains(stats, "failure: 0") || strings.Contains(stats, "success: 0") {
		t.Error(stats)
	}
}

// askTLS says which certificate and status an HTTPS request gets.
func askTLS(port uint16, sni, host, version string) string {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{version}},
		ForceAttemptHTTP2: version == "h2", DisableKeepAlives: true,
	}
	request, _ := http.NewRequest("GET", fmt.Sprintf("https://127.0.0.1:%d/", port), nil)
	request.Host = host
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "closed"
	}
	defer response.Body.Close()
	return fmt.Sprintf("%s: %d", response.TLS.PeerCertificates[0].DNSNames[0], response.StatusCode)
}

func certificate(t *testing.T, host string) model.Secret {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return model.Secret{Name: "infra/" + host,
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		PrivateKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})}
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
