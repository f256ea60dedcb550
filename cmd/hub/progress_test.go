package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// pair is two replicas of a hub on one API server, by name.
type pair map[string]*fixture

// startPair starts two replicas that find each other.
func startPair(t *testing.T) pair {
	first := newFixture(t)
	p := pair{"hub-a": first, "hub-b": first.beside()}
	for name, f := range p {
		f.startAmong(name)
	}
	for name, f := range p {
		testkit.Eventually(t, name+" is ready", f.ready)
	}
	return p
}

// leader names the replica that leads; "": none does.
func (p pair) leader(ctx context.Context) string {
	for name, f := range p {
		var lease coordinationv1.Lease
		if f.Get(ctx, client.ObjectKey{Namespace: "crossway-system", Name: "crossway-hub"}, &lease) != nil {
			return ""
		}
		if strings.HasPrefix(ptr.Deref(lease.Spec.HolderIdentity, ""), name) {
			return name
		}
	}
	return ""
}

func other(name string) string {
	if name == "hub-a" {
		return "hub-b"
	}
	return "hub-a"
}

// xdsClient is an edge that is no Envoy. It answers all that it gets, and NACKs what contains
// refuses.
type xdsClient struct {
	node, refuses string
	cancel        context.CancelFunc
	ended         chan struct{} // closed when the stream has ended

	mu  sync.Mutex
	has map[string]string // bodies by name
}

// connect opens a stream of an edge of pool us.
func (f *fixture) connect(node, refuses string) *xdsClient {
	f.t.Helper()
	certificates, ca := f.pairFor(f.t.Context(), "us")
	certificate, err := tls.X509KeyPair(certificates.Certificate, certificates.Key)
	testkit.Must(f.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection, err := grpc.NewClient(f.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})))
	testkit.Must(f.t, err)
	ctx, cancel := context.WithCancel(f.t.Context())
	c := &xdsClient{node: node, refuses: refuses, has: map[string]string{}, ended: make(chan struct{}),
		cancel: func() { cancel(); _ = connection.Close() }}
	f.t.Cleanup(c.cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	testkit.Must(f.t, err)
	for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.RouteType} {
		request := &discovery.DeltaDiscoveryRequest{Node: &corev3.Node{Id: node, Locality: &corev3.Locality{Region: "us", Zone: "us-a"}}, TypeUrl: typeURL}
		if typeURL == resourcev3.RouteType {
			request.ResourceNamesSubscribe = []string{"shop/refused/18081"}
		}
		testkit.Must(f.t, stream.Send(request))
	}
	go c.answer(stream)
	return c
}

// answer answers until the stream ends.
func (c *xdsClient) answer(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	defer close(c.ended)
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		answer := &discovery.DeltaDiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce}
		if slices.ContainsFunc(response.Resources, func(r *discovery.Resource) bool {
			return strings.Contains(string(r.GetResource().GetValue()), c.refuses)
		}) {
			answer.ErrorDetail = &rpcstatus.Status{Message: "no"}
		} else {
			c.mu.Lock()
			for _, r := range response.Resources {
				c.has[r.Name] = string(r.GetResource().GetValue())
			}
			c.mu.Unlock()
		}
		if stream.Send(answer) != nil {
			return
		}
	}
}

// hasRoute says whether a path is among the routes that the edge took.
func (c *xdsClient) hasRoute(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.has["shop/refused/18081"], path)
}

// statusOf is what the API server says of pool us, of the Gateway and of the route.
func (f *fixture) statusOf() string {
	var pool v1alpha1.EdgePool
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Name: "us"}, &pool))
	var gateway gatewayv1.Gateway
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Namespace: "shop", Name: "refused"}, &gateway))
	edges := 0
	for _, c := range pool.Status.Credentials {
		edges += int(c.Edges)
	}
	out := fmt.Sprintf("edges %d, with credentials %d, Ready %t, ConfigurationAccepted %t, Programmed %t", pool.Status.Edges, edges,
		meta.IsStatusConditionTrue(pool.Status.Conditions, condition.EdgePoolReadyType), meta.IsStatusConditionTrue(pool.Status.Conditions, condition.EdgePoolConfigurationType),
		meta.IsStatusConditionTrue(gateway.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)))
	if c := f.routeCondition(condition.RefusedInPools); c != nil {
		out += ", " + c.Message
	}
	if c := meta.FindStatusCondition(gateway.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)); c != nil && c.Status != "True" {
		out += ", " + c.Message
	}
	return out
}

func (f *fixture) expectStatus(what, want string) {
	f.t.Helper()
	testkit.EventuallySeen(f.t, what, func() (bool, any) { got := f.statusOf(); return strings.HasPrefix(got, want), got })
}

// revoke has pool us revoke these credentials of edges, and no others.
func (f *fixture) revoke(ctx context.Context, ids ...string) {
	f.t.Helper()
	testkit.Must(f.t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var pool v1alpha1.EdgePool
		if err := f.Get(ctx, client.ObjectKey{Name: "us"}, &pool); err != nil {
			return err
		}
		pool.Spec.RevokedCredentials = ids
		return f.Update(ctx, &pool)
	}))
}

// Two replicas with an edge each: statuses count both, whoever leads, and do not change when
// the leader is killed. Both edges refuse a route, and one that comes to the other replica
// gets what it had. A credential that is revoked ends the streams of both.
func TestStatusesOfTwoReplicas(t *testing.T) {
	p := startPair(t)
	f := p["hub-a"]
	testkit.Must(t, f.DeleteAllOf(t.Context(), &gatewayv1.Gateway{}, client.InNamespace("shop"))) // those of other tests: these edges take no secrets
	f.makeGateway()
	t.Cleanup(func() { // for another run on this API server
		testkit.Must(t, f.DeleteAllOf(context.Background(), &gatewayv1.HTTPRoute{}, client.InNamespace("shop")))
	})
	const light, heavy = "/heavy/[a-z]+", "/heavy/[a-z]{150}"
	f.setRoute("heavy", light)
	edges := map[string]*xdsClient{"hub-a": f.connect("edge-a", heavy), "hub-b": p["hub-b"].connect("edge-b", heavy)}
	f.expectStatus("both count", "edges 2, with credentials 2, Ready true, ConfigurationAccepted true, Programmed true")
	f.setRoute("heavy", heavy)
	refused := `edges 2, with credentials 2, Ready true, ConfigurationAccepted false, Programmed true, some edges refused generation 2 of the route; EdgePool "us" serves generation 1`
	f.expectStatus("both refuse the route", refused)

	leader := ""
	testkit.Eventually(t, "one leads", func() bool { leader = p.leader(t.Context()); return leader != "" })
	p[leader].stopHub()
	edges[leader].cancel()
	moved := p[other(leader)].connect("edge-"+strings.TrimPrefix(leader, "hub-"), heavy)
	testkit.Eventually(t, "the edge that moved has the version that it took", func() bool { return moved.hasRoute(light) && !moved.hasRoute(heavy) })
	for p.leader(t.Context()) != other(leader) {
		if got := p[other(leader)].statusOf(); !strings.HasPrefix(got, refused) {
			t.Fatalf("while nobody leads: %s", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got := p[other(leader)].statusOf(); !strings.HasPrefix(got, refused) {
			t.Fatalf("under another leader: %s", got)
		}
	}
	f.setRoute("beside", "/beside")
	testkit.Eventually(t, "the edge gets what is new beside the route", func() bool { return moved.hasRoute("/beside") && moved.hasRoute(light) })

	p[leader].startAmong(leader)
	testkit.Eventually(t, "the replica is back", p[leader].ready)
	back := p[leader].connect("edge-c", heavy)
	f.expectStatus("a third edge, on the replica that is back", strings.Replace(refused, "edges 2, with credentials 2", "edges 3, with credentials 3", 1))

	f.revoke(t.Context(), testCredential)
	t.Cleanup(func() { f.revoke(context.Background()) })
	for _, c := range []*xdsClient{edges[other(leader)], moved, back} {
		select {
		case <-c.ended:
		case <-time.After(5 * time.Second):
			t.Errorf("the stream of %s goes on after its credential was revoked", c.node)
		}
	}
	f.expectStatus("none is left", "edges 0, with credentials 0, Ready false")
}

// The last step of a rotation waits for edges of all replicas that use the old CA, for replicas
// that are not heard, and for edges that may not have found a hub that has just started.
func TestUsersOfTheOldCA(t *testing.T) {
	network := linktest.NewNetwork()
	a, b := network.Link("hub-a"), network.Link("hub-b")
	f := fleetEdges{server.New(server.Config{}), reconciler.NewReplicas(a, clock.RealClock{}), a.Replicas, &settling{settled: make(chan struct{})}}
	close(f.settling.settled)
	a.Start()
	b.Start()
	b.Topic("edges").Set("answers/us", []byte(`{"version": 1, "edges": [{"Node": "x", "Zone": "us-a", "Credential": "c", "CA": "old"}, {"Node": "y", "Zone": "us-a", "CA": "new"}]}`))
	const edge, unheard = "x of EdgePool us (credential c)", "maybe edges that are connected to replica hub-b of the hub, which is not heard"
	expect := func(what string, want ...string) {
		t.Helper()
		if got := f.usersOf("old"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	expect("an edge of b uses it", edge)
	network.Cut("hub-a", "hub-b")
	expect("b is silent", edge, unheard)
	network.Heal("hub-a", "hub-b")
	b.Topic("edges").Set("answers/us", []byte(`{"version": 2, "edges": []}`))
	expect("b has another version", "maybe edges that are connected to replica hub-b of the hub, whose answers are not read: it has another version, or too many of them")
	b.Stop()
	expect("b has ended, and its pod is gone")
	b = network.Link("hub-b")
	b.Topic("edges").Set("answers/us", []byte(`{"version": 1}`))
	b.Start()
	expect("nobody uses it")
	f.settling = &settling{settled: make(chan struct{})}
	expect("at the start", "maybe edges that have not found this replica of the hub yet, which has served edges for less than 10s")
}

// Edges have their time to find a replica from when it serves them, however long its start took.
func TestSettlingBeginsWhenEdgesAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serving := make(chan struct{})
		f := fleetEdges{settling: &settling{serving: serving, settled: make(chan struct{})}}
		testkit.Run(t, f.settling.Start)
		expect := func(after time.Duration, want bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := f.settled(); got != want {
				t.Errorf("settled is %t, want %t", got, want)
			}
		}
		expect(time.Hour, false)
		close(serving)
		expect(reconciler.ReconnectGrace-time.Second, false)
		expect(2*time.Second, true)
	})
}
