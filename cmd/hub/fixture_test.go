package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

var built sync.Once

// hubBinary is the hub, built once for all tests.
func hubBinary(t testing.TB) string {
	t.Helper()
	path := filepath.Join(envtestkit.Dir(t), "hub")
	built.Do(func() {
		if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	})
	return path
}

// fixture is a hub's API server, and the hub and an edge as processes.
type fixture struct {
	client.Client
	t                  testing.TB
	xds, health, debug string // addresses of the hub
	members, gossip    string // those of the member API and of gossip
	replicas           string // that for other replicas
	hub                *exec.Cmd
	log                string // the file of its log
	admin              string // of the Envoy
}

func newFixture(t testing.TB) *fixture {
	c, err := client.New(envtestkit.Config(t), client.Options{Scheme: newScheme()})
	testkit.Must(t, err)
	f := &fixture{Client: c, t: t, xds: freeAddress(t), health: freeAddress(t), debug: freeAddress(t), members: freeAddress(t), gossip: freeAddress(t), admin: freeAddress(t)}
	for _, name := range []string{"crossway-system", "crossway-fleet", "shop"} {
		f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return f
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// make creates objects; what is there from an earlier test stays.
func (f *fixture) make(objects ...client.Object) {
	f.t.Helper()
	for _, o := range objects {
		if err := f.Create(f.t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			f.t.Fatal(err)
		}
	}
}

// startHub runs the program until the test ends or stopHub, with further flags.
func (f *fixture) startHub(flags ...string) {
	f.t.Helper()
	f.startReplica("", flags...)
}

// startReplica is startHub of a replica of this name; "": that of the machine.
func (f *fixture) startReplica(name string, flags ...string) {
	f.t.Helper()
	path := hubBinary(f.t)
	log, err := os.CreateTemp(f.t.TempDir(), "hub-*.log")
	testkit.Must(f.t, err)
	f.hub = exec.Command(path, append([]string{"--kubeconfig=" + envtestkit.Kubeconfig(f.t), "--xds-addr=" + f.xds, "--xds-names=127.0.0.1,localhost", "--metrics-addr=0",
		"--member-api-addr=" + f.members, "--member-api-url=https://" + f.members, "--gossip-addr=" + f.gossip, "--gossip-public-address=" + f.gossip,
		"--health-addr=" + f.health, "--debug-address=" + f.debug, "--region=us", "--hub-cidrs=10.10.0.0/16,10.96.0.0/12", "--log-level=info"}, flags...)...)
	f.log = log.Name()
	f.hub.Stdout, f.hub.Stderr, f.hub.Env = log, log, append(os.Environ(), "POD_NAME="+name)
	testkit.Must(f.t, f.hub.Start())
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Logf("the hub's state:\n%s%s", textAt("http://"+f.debug+"/debug/rollout"), textAt("http://"+f.debug+"/debug/edges"))
		}
		f.stopHub()
		if text, err := os.ReadFile(log.Name()); err == nil && f.t.Failed() {
			f.t.Logf("the hub's log:\n%s", text)
		}
	})
}

// stopHub kills it, as a machine that dies would.
func (f *fixture) stopHub() {
	_ = f.hub.Process.Kill()
	_ = f.hub.Wait()
}

func (f *fixture) ready() bool { return f.says("/readyz") }

// says tells whether the hub answers 200 at a path of its health address.
func (f *fixture) says(path string) bool {
	answer, err := http.Get("http://" + f.health + path)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// edge is an Envoy to start.
type edge struct {
	pool, node, admin string
	regexLimit        int // re2.max_program_size.error_level
}

// startEdge runs an Envoy of pool us until the test ends.
func (f *fixture) startEdge(ctx context.Context) {
	f.t.Helper()
	f.start(ctx, edge{pool: "us", node: "envoy-0", admin: f.admin, regexLimit: 100000})
}

// testCredential is the ID of every edge's credential.
const testCredential = "credential"

// pairFor is a certificate for an edge of a pool, and the CA's.
func (f *fixture) pairFor(ctx context.Context, pool string) (pair registration.Pair, ca []byte) {
	f.t.Helper()
	var secret corev1.Secret
	testkit.Must(f.t, f.Get(ctx, client.ObjectKey{Namespace: "crossway-system", Name: registration.EdgeCASecret}, &secret))
	var object v1alpha1.EdgePool
	testkit.Must(f.t, f.Get(ctx, client.ObjectKey{Name: pool}, &object))
	authority := registration.CAOf(secret.Data)
	pair, err := registration.NewEdgeCertificate(authority.Issuer(time.Now(), rand.Reader), registration.EdgeIdentity{
		Pool: pool, Region: pool, Zone: pool + "-a", PoolUID: string(object.UID), Credential: testCredential}, registration.DefaultEdgeLife)
	testkit.Must(f.t, err)
	return pair, authority.Bundle()
}

// start runs an Envoy until the test ends.
func (f *fixture) start(ctx context.Context, e edge) {
	f.t.Helper()
	binary, err := install.Envoy(ctx, os.Stderr)
	testkit.Must(f.t, err)
	dir := f.t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		testkit.Must(f.t, os.WriteFile(path, data, 0o600))
		return path
	}
	pair, ca := f.pairFor(ctx, e.pool)
	config := f.bootstrap(e, write("tls.crt", pair.Certificate), write("tls.key", pair.Key), write("ca.crt", ca))
	logs := filepath.Join(dir, "envoy.log")
	envoy := exec.Command(binary, "-c", write("envoy.yaml", []byte(config)), "--disable-hot-restart", "--concurrency", "1", "-l", "info", "--log-path", logs)
	testkit.Must(f.t, envoy.Start())
	f.t.Cleanup(func() {
		_ = envoy.Process.Kill()
		_ = envoy.Wait()
		if text, err := os.ReadFile(logs); err == nil && f.t.Failed() {
			f.t.Logf("Envoy's log:\n%s", text)
		}
	})
}

func (f *fixture) bootstrap(e edge, certificate, key, ca string) string {
	socket := func(address string) string {
		host, port, _ := net.SplitHostPort(address)
		return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
	}
	return fmt.Sprintf(`
node: {id: %[6]s, cluster: %[7]s, locality: {region: %[7]s, zone: %[7]s-a}}
admin: {address: %[1]s}
layered_runtime: {layers: [{name: static, static_layer: {re2.max_program_size.error_level: %[8]d}}]}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true,
    grpc_services: [{envoy_grpc: {cluster_name: xds, retry_policy: {retry_back_off: {base_interval: 0.1s, max_interval: 0.5s}}}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
cluster_manager: {load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 5s, timeout: 2s}}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %[3]q}, private_key: {filename: %[4]q}}]
          validation_context: {trusted_ca: {filename: %[5]q}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: localhost}}]}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: %[2]s}}]}]}
`, socket(e.admin), socket(f.xds), certificate, key, ca, e.node, e.pool, e.regexLimit)
}

// counters are Envoy's statistics that match a regular expression, as text.
func (f *fixture) counters(filter string) string {
	answer, err := http.Get("http://" + f.admin + "/stats?filter=" + url.QueryEscape(filter))
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// backend is a server on this machine's own address.
func backend(t testing.TB) (address string, port int32) {
	l := listenHere(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s", r.URL.Path, r.Host)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return addressOf(l)
}

// listenHere listens at an address of this machine that is not loopback: the API server refuses endpoints there.
func listenHere(t testing.TB) net.Listener {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	testkit.Must(t, err)
	for _, a := range addresses {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil || ip.To4() == nil || !ip.IsGlobalUnicast() {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort(ip.String(), "0"))
		testkit.Must(t, err)
		return l
	}
	t.Skip("this machine has no address that is not loopback")
	return nil
}

func addressOf(l net.Listener) (address string, port int32) {
	at := l.Addr().(*net.TCPAddr)
	return at.IP.String(), int32(at.Port)
}

// ask sends one request with a Host to a gateway address.
func ask(address, host, path string) (status int, body string) {
	request, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	request.Host = host
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}
