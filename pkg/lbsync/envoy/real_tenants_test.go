package envoy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// tenants are two teams at one Gateway, from the objects that they write to an Envoy that serves them.
type tenants struct {
	t           *testing.T
	e           *hubEdge
	cache       envoy.Cache
	in          gateway.Input
	plain, tls  uint16 // ports
	backend     netip.AddrPort
	generation  uint64
	assignments map[string]bool
}

func newTenants(t *testing.T) *tenants {
	x := &tenants{t: t, e: startHubEdge(t, "--drain-time-s", "1", "--drain-strategy", "immediate"), plain: freePort(t), tls: freePort(t),
		backend: webSocketEcho(t), assignments: map[string]bool{}}
	x.in = gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "ours"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Pools:          []v1alpha1.EdgePool{{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}}},
	}
	x.in.Pools[0].Status.Allocations = []v1alpha1.AddressAllocation{{Gateway: v1alpha1.GatewayReference{Namespace: "infra", Name: "shared"}, Address: "127.0.0.1"}}
	for _, team := range []string{"a", "b"} {
		x.in.Services = append(x.in.Services, corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	x.in.Gateways = []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "shared", Generation: 1}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "ours"}}}
	x.secret("a")
	x.listeners(x.listener("a", ""), x.listener("a-tls", "a.example", "a"))
	x.route("a", "web", "a.example")
	return x
}

// listener is one listener of the Gateway, with TLS if it has certificates.
func (x *tenants) listener(name, hostname string, certificates ...string) gatewayv1.Listener {
	from := gatewayv1.NamespacesFromAll
	l := gatewayv1.Listener{Name: gatewayv1.SectionName(name), Protocol: gatewayv1.HTTPProtocolType, Port: gatewayv1.PortNumber(x.plain),
		AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from}}}
	if hostname != "" {
		l.Hostname = (*gatewayv1.Hostname)(&hostname)
	}
	if len(certificates) > 0 {
		l.Protocol, l.Port, l.TLS = gatewayv1.HTTPSProtocolType, gatewayv1.PortNumber(x.tls), &gatewayv1.ListenerTLSConfig{}
		for _, c := range certificates {
			l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(c)})
		}
	}
	return l
}

// listeners replaces the Gateway's listeners.
func (x *tenants) listeners(all ...gatewayv1.Listener) {
	g := *x.in.Gateways[0].DeepCopy()
	g.Generation++
	g.Spec.Listeners = all
	x.in.Gateways = []gatewayv1.Gateway{g}
}

// secret writes a new certificate for <name>.example into Secret infra/<name>.
func (x *tenants) secret(name string) { x.secretFor(name, name+".example") }

func (x *tenants) secretFor(name, hostname string) {
	c := certificate(x.t, hostname)
	s := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: name, ResourceVersion: fmt.Sprint(time.Now().UnixNano())}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: c.Certificate, corev1.TLSPrivateKeyKey: c.PrivateKey}}
	kept := []corev1.Secret{s}
	for _, old := range x.in.Secrets {
		if old.Name != name {
			kept = append(kept, old)
		}
	}
	x.in.Secrets = kept
}

// route writes a team's route; without hostnames, it deletes it.
func (x *tenants) route(team, name string, hostnames ...string) {
	var kept []*gateway.Route
	for _, r := range x.in.Routes {
		if r.Ref.Name.Namespace != team || r.Ref.Name.Name != name {
			kept = append(kept, r)
		}
	}
	if len(hostnames) > 0 {
		namespace, port := gatewayv1.Namespace("infra"), gatewayv1.PortNumber(80)
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: name, Generation: int64(x.generation) + 1}}
		r.Spec.ParentRefs = []gatewayv1.ParentReference{{Namespace: &namespace, Name: "shared"}}
		for _, h := range hostnames {
			r.Spec.Hostnames = append(r.Spec.Hostnames, gatewayv1.Hostname(h))
		}
		r.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Name: "web", Port: &port}}}}}}
		kept = append(kept, gateway.FromHTTPRoute(r))
	}
	x.in.Routes = kept
}

// parameters give the Gateway's clients an idle timeout.
func (x *tenants) parameters(idle time.Duration) {
	p := v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "clients"}}
	p.Spec.Clients = &v1alpha1.ClientSettings{IdleTimeout: &metav1.Duration{Duration: idle}}
	x.in.Parameters = []v1alpha1.GatewayParameters{p}
	g := *x.in.Gateways[0].DeepCopy()
	g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "clients"}}
	x.in.Gateways = []gatewayv1.Gateway{g}
}

// serve sends what the objects mean to the Envoy, and waits until it has all of it.
func (x *tenants) serve(why string) {
	x.t.Helper()
	result := gateway.Build(x.in)
	x.in.Memo = result.Memo
	p := lbsync.ProgramFor(result.Model, lbsync.PoolRef{Pool: "us", Region: "us"})
	var loads []server.Resource
	for _, a := range p.Assignments {
		r, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: a.Key, Localities: []lbsync.Locality{locality("us", traffic.TotalParts, x.backend)}})
		if err != nil {
			x.t.Fatal(err)
		}
		loads = append(loads, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
	}
	x.e.hub.UpdateLoadAssignments("us", loads, nil)
	r := x.cache.Translate(p)
	if len(r.Faults) > 0 {
		x.t.Fatal(r.Faults)
	}
	x.generation++
	x.e.hub.SetResources("us", snapshot(x.generation, r))
	eventually(x.t, "Envoy has: "+why, func() bool {
		edges := x.e.hub.Edges("us")
		return len(edges) == 1 && edges[0].Generation == x.generation
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// webSocketEcho is a backend that sends back what it gets after an upgrade.
func webSocketEcho(t *testing.T) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	}))
	t.Cleanup(s.CloseClientConnections)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// webSocket is an upgraded connection of a client.
type webSocket struct {
	net.Conn
	reader *bufio.Reader
}

// openWebSocket opens one for a host, through TLS if name is a server name.
func openWebSocket(t *testing.T, port uint16, name, host string) *webSocket {
	t.Helper()
	var conn net.Conn
	eventually(t, "a WebSocket", func() bool {
		var err error
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if name == "" {
			conn, err = net.Dial("tcp", address)
		} else {
			conn, err = tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"http/1.1"}})
		}
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nhost: %s\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", host)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", response, err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return &webSocket{conn, reader}
}

// alive says whether a message comes back.
func (w *webSocket) alive() error {
	_ = w.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		return err
	}
	answer, err := w.reader.ReadString('\n')
	if err == nil && answer != "hello\n" {
		err = fmt.Errorf("got %q", answer)
	}
	return err
}

// draining counts the filter chains and Listeners whose connections Envoy is about to close.
func (x *tenants) draining() string {
	return x.e.stats("^listener_manager.(total_filter_chains_draining|total_listeners_draining)$")
}

// WebSockets of team A stay open whatever team B and the platform team do to the same ports. Envoy closes the connections
// of a chain that it drains after the drain time, which is 1 s here.
func TestNobodyElseClosesAWebSocket(t *testing.T) {
	x := newTenants(t)
	x.serve("team A alone")
	plain, secure := openWebSocket(t, x.plain, "", "a.example"), openWebSocket(t, x.tls, "a.example", "a.example")
	before := x.draining()
	bs := func(n int) (all []string) {
		for k := range n {
			all = append(all, fmt.Sprintf("b%d.example", k))
		}
		return all
	}
	mine := []gatewayv1.Listener{x.listener("a", ""), x.listener("a-tls", "a.example", "a")}
	x.secret("b")
	x.secretFor("a2", "a.example")
	for _, step := range []struct {
		why     string
		change  func()
		drained bool // chains of team B's own
	}{
		{"B's first hostname", func() { x.route("b", "web", bs(1)...) }, false},
		{"its 16 hostnames", func() { x.route("b", "web", bs(16)...) }, false},
		{"60 hostnames in 4 routes", func() {
			for k := range 4 {
				x.route("b", fmt.Sprint("web", k), bs(60)[15*k:15*k+15]...)
			}
		}, false},
		{"200 hostnames", func() {
			for k := range 200 {
				x.route("b", fmt.Sprint("host", k), fmt.Sprintf("h%d.b.example", k))
			}
		}, false},
		{"a wildcard", func() { x.route("b", "wild", "*.b.example") }, false},
		{"a wildcard above A's hostname", func() { x.route("b", "wild", "*.example") }, false},
		{"no wildcard", func() { x.route("b", "wild") }, false},
		{"a listener before A's, of the same port", func() { x.listeners(append([]gatewayv1.Listener{x.listener("b", "b.example")}, mine...)...) }, false},
		{"a listener with a certificate before A's", func() {
			x.listeners(append([]gatewayv1.Listener{x.listener("b-tls", "b.example", "b")}, mine...)...)
		}, false},
		{"a listener for all names", func() {
			x.listeners(append([]gatewayv1.Listener{x.listener("any", "", "b"), x.listener("b-tls", "b.example", "b")}, mine...)...)
		}, false},
		{"another certificate for B", func() { x.secret("b") }, false},
		{"another certificate for A", func() { x.secret("a") }, false},
		{"another Secret for A", func() {
			mine[1] = x.listener("a-tls", "a.example", "a2")
			x.listeners(append([]gatewayv1.Listener{x.listener("b-tls", "b.example", "b")}, mine...)...)
		}, true},
		{"no hostname of B", func() {
			x.in.Routes = nil
			x.route("a", "web", "a.example")
		}, true},
		{"no listener of B", func() { x.listeners(mine...) }, true},
	} {
		step.change()
		x.serve(step.why)
		if now := x.draining(); !step.drained && now != before {
			t.Errorf("after %s: %s, was %s", step.why, now, before)
		}
	}
	time.Sleep(3 * time.Second) // three times the drain time
	for what, socket := range map[string]*webSocket{"plain": plain, "TLS": secure} {
		if err := socket.alive(); err != nil {
			t.Errorf("the %s WebSocket of team A: %v", what, err)
		}
	}
	if got := askTLS(x.tls, "a.example", "a.example", "http/1.1"); got == "closed" {
		t.Errorf("a new connection: %s", got)
	}
}
