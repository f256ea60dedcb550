package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/registration"
)

const pool = "public-us"

var usEdge = registration.EdgeIdentity{Pool: pool, Region: "us", Zone: "us-a", PoolUID: "uid-1", Credential: "abcdefghi1"}

// timeout is the longest that a test waits for anything.
const timeout = 10 * time.Second

// hub is a Server on loopback and the events that its observer was notified of.
type hub struct {
	*server.Server
	t       testing.TB
	address string
	stop    func()
	ca      registration.Pair

	mu      sync.Mutex
	regions map[string]string // of EdgePools, by pool
	revoked string            // credential
	onAck   func()            // instead of an event, if set
	onAcked func(typeName, name string)
	events  []string
	// forgetful: no load reports and ACKs are recorded.
	forgetful bool
	changed   *sync.Cond
}

func newHub(t testing.TB, config server.Config) *hub {
	t.Helper()
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	check(t, err)
	h := newIdleHub(t, ca, config)
	h.listen("127.0.0.1:0")
	return h
}

// newIdleHub does not listen yet.
func newIdleHub(t testing.TB, ca registration.Pair, config server.Config) *hub {
	t.Helper()
	h := &hub{t: t, ca: ca, regions: map[string]string{pool: "us"}}
	h.changed = sync.NewCond(&h.mu)
	config.Authorize = func(id registration.EdgeIdentity) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.regions[id.Pool] != id.Region {
			return fmt.Errorf("EdgePool %q is in region %q", id.Pool, h.regions[id.Pool])
		}
		if h.revoked != "" && h.revoked == id.Credential {
			return fmt.Errorf("credential %s is revoked", id.Credential)
		}
		return nil
	}
	h.Server = server.New(config)
	h.Observe(h.observer())
	return h
}

// listen serves until h.stop is called or the test ends.
func (h *hub) listen(address string) {
	h.t.Helper()
	pair, err := registration.NewServerCertificate(h.issuer(), []string{"127.0.0.1"})
	check(h.t, err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	check(h.t, err)
	g := h.NewGRPCServer(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: h.roots()})
	h.Register(g)
	socket, err := listener.Listen(h.t.Context(), address)
	check(h.t, err)
	h.address, h.stop = socket.Addr().String(), g.Stop
	go g.Serve(socket)
	h.t.Cleanup(g.Stop)
}

// observer records events, a line each.
func (h *hub) observer() (o server.Observer) {
	o.Connected = func(e server.Edge) { h.record("connected %s", e.Node) }
	o.Disconnected = func(e server.Edge) { h.record("disconnected %s", e.Node) }
	o.InitialVersions = func(e server.Edge, typeURL string, versions map[string]string) {
		h.record("%s has %s %v", e.Node, short(typeURL), versions)
	}
	o.Acked = func(e server.Edge, typeURL string, list []server.NameVersion) {
		if h.onAck != nil {
			h.onAck()
			return
		}
		for _, r := range list {
			if !h.forgetful {
				h.record("%s acked %s %s %s", e.Node, short(typeURL), r.Name, r.Version)
			}
			if h.onAcked != nil {
				h.onAcked(short(typeURL), r.Name)
			}
		}
	}
	o.Nacked = func(e server.Edge, r server.Nack) {
		h.record("%s nacked %s %s %s: %s", e.Node, short(r.TypeURL), r.Name, r.Version, r.Message)
	}
	o.Load = func(e server.Edge, r server.LoadReport) {
		if h.forgetful {
			return
		}
		h.record("%s of %s sent %+v", e.Node, e.Identity.Region, r)
	}
	return o
}

func short(typeURL string) string { return typeURL[strings.LastIndex(typeURL, ".")+1:] }

func (h *hub) record(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, fmt.Sprintf(format, args...))
	h.changed.Broadcast()
}

// waitFor waits until an event was recorded.
func (h *hub) waitFor(line string) {
	h.t.Helper()
	timer := time.AfterFunc(timeout, func() { h.record("(time is up)") })
	defer timer.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !slices.Contains(h.events, line) {
		if slices.Contains(h.events, "(time is up)") {
			h.t.Fatalf("no event %q but:\n%s", line, strings.Join(h.events, "\n"))
		}
		h.changed.Wait()
	}
}

// count is the number of events with a prefix.
func (h *hub) count(prefix string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, line := range h.events {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (h *hub) issuer() registration.Issuer {
	return registration.Issuer{CA: h.ca, Now: time.Now(), Random: rand.Reader}
}

func (h *hub) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.ca.Certificate)
	return roots
}

// certificate signs a client certificate for an edge.
func (h *hub) certificate(id registration.EdgeIdentity) tls.Certificate {
	h.t.Helper()
	pair, err := registration.NewEdgeCertificate(h.issuer(), id, time.Hour)
	check(h.t, err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	check(h.t, err)
	return certificate
}

// certificateWith is a client certificate with any URIs, signed by ca.
func certificateWith(t testing.TB, ca registration.Pair, uris ...string) tls.Certificate {
	t.Helper()
	return certificateUntil(t, time.Now().Add(time.Hour), ca, uris...)
}

// certificateUntil is certificateWith with an expiry, to a second.
func certificateUntil(t testing.TB, end time.Time, ca registration.Pair, uris ...string) tls.Certificate {
	t.Helper()
	issuer, err := tls.X509KeyPair(ca.Certificate, ca.Key)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "crossway:member:us-west", Organization: []string{"crossway:members"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, uri := range uris {
		u, err := url.Parse(uri)
		check(t, err)
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Leaf, &key.PublicKey, issuer.PrivateKey)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (h *hub) dial(certificate ...tls.Certificate) *grpc.ClientConn {
	h.t.Helper()
	return h.dialFrom("127.0.0.1", certificate...)
}

// dialFrom is dial from one of the machine's own addresses.
func (h *hub) dialFrom(address string, certificate ...tls.Certificate) *grpc.ClientConn {
	h.t.Helper()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	connection, err := grpc.NewClient(h.address, grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
		return from.DialContext(ctx, "tcp", to)
	}), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: h.roots(), Certificates: certificate,
	})))
	check(h.t, err)
	h.t.Cleanup(func() { connection.Close() })
	return connection
}

// edge is a delta client that the test controls.
type edge struct {
	t      testing.TB
	node   string
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelFunc
	fences int
}

// connect opens a stream as an Envoy of the pool.
func (h *hub) connect(node string) *edge {
	h.t.Helper()
	return open(h.t, h.dial(h.certificate(usEdge)), node)
}

func open(t testing.TB, connection *grpc.ClientConn, node string) *edge {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	check(t, err)
	return &edge{t: t, node: node, stream: stream, cancel: cancel}
}

func (e *edge) send(r *discovery.DeltaDiscoveryRequest) {
	e.t.Helper()
	r.Node = &core.Node{Id: e.node}
	check(e.t, e.stream.Send(r))
}

type versions map[string]string

// asks is the first request of a type: a wildcard if it names none.
func (e *edge) asks(typeURL string, has versions, names ...string) {
	e.t.Helper()
	e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, InitialResourceVersions: has, ResourceNamesSubscribe: names})
}

func (e *edge) subscribes(typeURL string, names ...string) {
	e.t.Helper()
	e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (e *edge) unsubscribes(typeURL string, names ...string) {
	e.t.Helper()
	e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: names})
}

func (e *edge) ack(r *discovery.DeltaDiscoveryResponse) {
	e.t.Helper()
	e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

func (e *edge) nack(r *discovery.DeltaDiscoveryResponse, message string) {
	e.t.Helper()
	e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: &rpcstatus.Status{Code: 13, Message: message}})
}

func (e *edge) receives() *discovery.DeltaDiscoveryResponse {
	e.t.Helper()
	timer := time.AfterFunc(timeout, e.cancel)
	defer timer.Stop()
	r, err := e.stream.Recv()
	if err != nil {
		e.t.Fatalf("no response: %v", err)
	}
	return r
}

// gets takes the next response and compares it: "Cluster a@1 b@2 -c" has a and b
// in these versions and removes c.
func (e *edge) gets(want string) *discovery.DeltaDiscoveryResponse {
	e.t.Helper()
	r := e.receives()
	if got := describe(r); got != want {
		e.t.Fatalf("got response %q, want %q", got, want)
	}
	return r
}

// takes is gets and ack.
func (e *edge) takes(want string) {
	e.t.Helper()
	e.ack(e.gets(want))
}

// getsNothing asks for something that does not exist: the answer to that comes
// after all that can be sent.
func (e *edge) getsNothing() {
	e.t.Helper()
	e.fences++
	fence := fmt.Sprintf("fence-%d", e.fences)
	e.subscribes(resourcev3.SecretType, fence)
	e.takes("Secret -" + fence)
}

// takesAll ACKs all that comes until nothing more does, and describes it.
func (e *edge) takesAll() []string {
	e.t.Helper()
	e.fences++
	fence := fmt.Sprintf("fence-%d", e.fences)
	e.subscribes(resourcev3.SecretType, fence)
	var got []string
	for {
		r := e.receives()
		e.ack(r)
		if slices.Contains(r.RemovedResources, fence) {
			return got
		}
		got = append(got, describe(r))
	}
}

func describe(r *discovery.DeltaDiscoveryResponse) string {
	parts := []string{}
	for _, resource := range r.Resources {
		parts = append(parts, resource.Name+"@"+resource.Version)
	}
	slices.Sort(parts)
	for _, name := range slices.Sorted(slices.Values(r.RemovedResources)) {
		parts = append(parts, "-"+name)
	}
	return strings.Join(append([]string{short(r.TypeUrl)}, parts...), " ")
}

// list makes resources from "a@1 b@2"; "a@1/x" is a cluster using assignment x.
func list(names string) []server.Resource {
	var found []server.Resource
	for _, one := range strings.Fields(names) {
		one, assignment, _ := strings.Cut(one, "/")
		name, version, _ := strings.Cut(one, "@")
		body, _ := anypb.New(wrapperspb.String(one))
		found = append(found, server.Resource{Name: name, Version: version, Body: body, Assignment: assignment})
	}
	return found
}

// snapshot makes a Snapshot from lines such as "Cluster a@1 b@2".
func snapshot(generation uint64, lines ...string) server.Snapshot {
	s := server.Snapshot{Generation: generation}
	for _, line := range lines {
		typeName, names, _ := strings.Cut(line, " ")
		switch typeName {
		case "Cluster":
			s.Clusters = list(names)
		case "Secret":
			s.Secrets = list(names)
		case "Listener":
			s.Listeners = list(names)
		case "Route":
			s.Routes = list(names)
		default:
			panic(typeName)
		}
	}
	return s
}

// generation is the last one that the edge applied completely.
func (h *hub) generation(node string) uint64 {
	h.t.Helper()
	for _, state := range h.Edges(pool) {
		if state.Edge.Node == node {
			return state.Generation
		}
	}
	h.t.Fatalf("edge %s is not connected", node)
	return 0
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}
