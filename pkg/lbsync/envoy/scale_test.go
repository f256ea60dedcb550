package envoy_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/lbsync/traffic"
	"crossway.dev/crossway/pkg/registration"
)

const deltaBootstrap = `
node: {id: test, cluster: test}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
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
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %[2]s/edge.crt}, private_key: {filename: %[2]s/edge.key}}]
          validation_context: {trusted_ca: {filename: %[2]s/ca.crt}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[1]d}}}}]}]}
`

// ack is one resource that the Envoy took.
type ack struct{ typeURL, name, version string }

// hubEdge is one Envoy of pool us, with the hub's xDS server. What the Envoy takes goes to the channel.
type hubEdge struct {
	hub     *server.Server
	acks    <-chan ack
	admin   string
	process *os.Process
}

// stats are the statistics whose names match a regular expression.
func (e *hubEdge) stats(filter string) string {
	return strings.TrimSpace(e.page("/stats?filter=" + url.QueryEscape(filter)))
}

// page is what the admin interface answers.
func (e *hubEdge) page(path string) string {
	response, err := http.Get("http://" + e.admin + path)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// asInChart are the parts of the chart's bootstrap that decide what resources cost: the bound of regular expressions and
// the statistics of clusters.
func asInChart(t *testing.T) string {
	chart, err := os.ReadFile("../../../charts/edge/templates/bootstrap.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	in := false
	for line := range strings.Lines(string(chart)) {
		line, found := strings.CutPrefix(line, "    ")
		if found && line[0] != ' ' {
			in = strings.HasPrefix(line, "layered_runtime:") || strings.HasPrefix(line, "stats_config:")
		}
		if in && found && !strings.Contains(line, "{{") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// startHubEdge starts both; args are more arguments of Envoy.
func startHubEdge(t *testing.T, args ...string) *hubEdge {
	return startHubEdgeWith(t, server.Config{}, nil, args...)
}

// startHubEdgeWith has another server, and load reports.
func startHubEdgeWith(t *testing.T, config server.Config, load func(server.Edge, server.LoadReport), args ...string) *hubEdge {
	if testing.Short() {
		t.Skip("needs an Envoy: run without -short")
	}
	program, err := install.Envoy(t.Context(), os.Stderr)
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	acks := make(chan ack, 1<<16)
	config.Authorize = func(registration.EdgeIdentity) error { return nil }
	hub := server.New(config)
	hub.Observe(server.Observer{
		Load: load,
		Acked: func(_ server.Edge, typeURL string, list []server.NameVersion) {
			for _, r := range list {
				acks <- ack{typeURL, r.Name, r.Version}
			}
		},
		Nacked: func(_ server.Edge, n server.Nack) { t.Errorf("NACK: %v", n) },
	})
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	must(err)
	issuer := registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}
	own, err := registration.NewServerCertificate(issuer, []string{"127.0.0.1"})
	must(err)
	edge, err := registration.NewEdgeCertificate(issuer, registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, time.Hour)
	must(err)
	certificate, err := tls.X509KeyPair(own.Certificate, own.Key)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)
	g := hub.NewGRPCServer(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots})
	hub.Register(g)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() { _ = g.Serve(socket) }()
	t.Cleanup(g.Stop)

	dir := t.TempDir()
	for name, content := range map[string][]byte{"ca.crt": ca.Certificate, "edge.crt": edge.Certificate, "edge.key": edge.Key,
		"bootstrap.yaml": fmt.Appendf(nil, deltaBootstrap+asInChart(t), socket.Addr().(*net.TCPAddr).Port, dir)} {
		must(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	e := &hubEdge{hub: hub, acks: acks}
	e.start(t, program, dir, args...)
	return e
}

// start runs an Envoy with the bootstrap in a directory, until the test ends.
func (e *hubEdge) start(t *testing.T, program, dir string, args ...string) {
	t.Helper()
	admin := filepath.Join(dir, "admin")
	cmd := exec.Command(program, append([]string{"-c", filepath.Join(dir, "bootstrap.yaml"), "--disable-hot-restart", "--ignore-unknown-dynamic-fields", "--concurrency", "2",
		"-l", "error", "--admin-address-path", admin}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	e.process = cmd.Process
	eventually(t, "admin address", func() bool {
		address, _ := os.ReadFile(admin)
		e.admin = string(address)
		return e.admin != ""
	})
}

func served(all []envoy.Resource) (out []server.Resource) {
	for _, r := range all {
		out = append(out, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
	}
	return out
}

func snapshot(n uint64, r envoy.Resources) server.Snapshot {
	return server.Snapshot{Generation: n, Clusters: served(r.Clusters), Secrets: served(r.Secrets), Listeners: served(r.Listeners),
		Routes: served(r.Routes)}
}

// routeChanges gives the times from a changed route to its ACK, for a Gateway of 1000 hosts, and the time that a fresh
// Envoy takes until it has all of it.
func routeChanges(t *testing.T, extra ...model.VirtualHost) (cold time.Duration, changes []time.Duration) {
	began := time.Now()
	e := startHubEdge(t)
	hub, acks := e.hub, e.acks
	wait := func(names map[string]string) {
		t.Helper()
		timeout := time.After(time.Minute)
		for len(names) > 0 {
			select {
			case a := <-acks:
				if names[a.name] == a.version {
					delete(names, a.name)
				}
			case <-timeout:
				t.Fatalf("%d resources were not taken", len(names))
			}
		}
	}
	p := large(1000)
	p.Listeners[0].Address, p.Listeners[0].Port = netip.MustParseAddr("127.0.0.1"), freePort(t)
	hosts := &p.Listeners[0].Chains[0].Hosts
	*hosts = append(*hosts, extra...)
	var cache envoy.Cache
	have := map[string]string{}
	var loads []server.Resource
	for _, a := range p.Assignments {
		r, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: a.Key, Localities: []lbsync.Locality{locality("us", traffic.TotalParts, netip.MustParseAddrPort("127.0.0.1:1"))}})
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
	}
	hub.UpdateLoadAssignments("us", loads, nil)
	for n := range 11 {
		if n > 0 {
			*hosts = slices.Clone(*hosts)
			(*hosts)[n*91].Rules = []model.Rule{{Match: prefix(fmt.Sprint("/", n)), Forward: to(p.Assignments[n].Key)}}
		}
		changed := map[string]string{}
		translated := cache.Translate(p)
		for _, r := range translated.Routes {
			if have[r.Name] != r.Version {
				changed[r.Name], have[r.Name] = r.Version, r.Version
			}
		}
		sent := time.Now()
		hub.SetResources("us", snapshot(uint64(n+1), translated))
		wait(changed)
		if n == 0 {
			cold = time.Since(began)
		} else {
			changes = append(changes, time.Since(sent))
		}
	}
	slices.Sort(changes)
	return cold, changes
}

// What one changed route of a Gateway with 1000 hosts costs an Envoy, which builds the whole RouteConfiguration again.
func TestOneRouteOfManyIsCheapForEnvoy(t *testing.T) {
	cold, changes := routeChanges(t)
	t.Logf("cold %v, p50 %v, p90 %v", cold, changes[5], changes[9])
}
