package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// Two replicas of the hub divide what the edges of both send: it overflows although no replica's edges alone exceed what a
// cluster takes. One replica is killed, its edge connects to the other, and it starts again: edges are sent nothing.
func TestTwoReplicasDivideTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	f := newFixture(t)
	hubs := []*fixture{f, f.beside()}
	f.makeSplitFleet()
	for i, hub := range hubs {
		hub.startAmong(fmt.Sprintf("shares-%d", i))
	}
	testkit.Eventually(t, "both replicas are ready", func() bool { return hubs[0].ready() && hubs[1].ready() })
	f.exportSplit()
	testkit.EventuallySeen(t, "one of them to decide for both", func() (bool, any) {
		got := []string{hubs[0].decider(), hubs[1].decider()}
		return got[0] != "" && got[0] == got[1], got
	})

	edges := []*countingEdge{newCountingEdge(f, "edge-0"), newCountingEdge(f, "edge-1")}
	for i, e := range edges {
		e.connect(hubs[i], 0)
		testkit.Eventually(t, "all requests to go to split-west", func() bool { return e.part("split-west") == 1 })
	}
	for _, e := range edges {
		e.setRate(300) // 600 of both, and split-west takes 400
	}
	for _, e := range edges {
		testkit.EventuallySeen(t, "a third to overflow", func() (bool, any) { got := e.part("split-east"); return math.Abs(got-1.0/3) < 0.02, got })
	}
	time.Sleep(9 * time.Second) // of small corrections
	before := edges[0].seen() + edges[1].seen()
	nothing := func(what string) {
		time.Sleep(9 * time.Second)
		if after := edges[0].seen() + edges[1].seen(); after != before || math.Abs(edges[0].part("split-east")-1.0/3) > 0.02 {
			t.Errorf("after %s edges were sent %d load assignments: parts %v and %v", what, after-before, edges[0].part("split-east"), edges[1].part("split-east"))
		}
	}
	gone := 0
	if hubs[1].decider() == "shares-1" {
		gone = 1
	}
	hubs[gone].stopHub()
	edges[gone].connect(hubs[1-gone], 2*time.Second)
	nothing("the end of the replica that decided")
	hubs[gone].startAmong(fmt.Sprintf("shares-%d", gone))
	testkit.Eventually(t, "the replica to be ready again", hubs[gone].ready)
	nothing("its new start")
	edges[gone].connect(hubs[gone], 2*time.Second)
	nothing("its edge's return")
}

// decider is whose shares are in force at a replica that hears the others.
func (f *fixture) decider() string {
	text := textAt("http://" + f.debug + "/debug/state")
	_, after, _ := strings.Cut(text, "\nDecider: ")
	name, _, _ := strings.Cut(after, "\n")
	if !strings.Contains(text, "Heard: true") {
		return ""
	}
	return name
}

// makeSplitFleet makes a pool, two clusters, of which the nearer takes 400 requests per second, and a route to both.
func (f *fixture) makeSplitFleet() {
	member := func(name, region, cidr string) *v1alpha1.MemberCluster {
		return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: region,
			EndpointCIDRs: []string{cidr}, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"split"}}}}
	}
	f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "split"}},
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "split"}, Spec: v1alpha1.EdgePoolSpec{Region: "split", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.40.0/24"}}}},
		member("split-west", "split", "10.181.0.0/16"), member("split-east", "far", "10.182.0.0/16"),
		&v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "crossway-system"}, Spec: v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway-global"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController,
			ParametersRef: &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "global", Namespace: ptr.To(gatewayv1.Namespace("crossway-system"))}}},
		&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "split"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
			Listeners: []gatewayv1.Listener{{Name: "http", Port: 18090, Protocol: gatewayv1.HTTPProtocolType}}}})
	route := routeTo("store", "split.example.com")
	route.Namespace = "split"
	f.make(route, &v1alpha1.BackendPolicy{ObjectMeta: metav1.ObjectMeta{Name: "store", Namespace: "split"}, Spec: v1alpha1.BackendPolicySpec{
		TargetRefs: []gatewayv1.LocalPolicyTargetReference{{Group: "multicluster.x-k8s.io", Kind: "ServiceImport", Name: "store"}},
		Capacity:   &v1alpha1.BackendCapacity{MaxRatePerEndpoint: 200}}})
}

// exportSplit exports the service from both clusters, with two endpoints each.
func (f *fixture) exportSplit() {
	for i, cluster := range []string{"split-west", "split-east"} {
		testkit.Eventually(f.t, "the member's namespace", func() bool {
			return f.Get(f.t.Context(), client.ObjectKey{Name: "member-" + cluster}, &corev1.Namespace{}) == nil
		})
		f.make(&v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + cluster, Name: "store.split"}, Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: "split", Name: "store"}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}},
			&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
				ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + cluster, Name: "store-split", Labels: map[string]string{
					v1alpha1.LabelServiceName: "store", v1alpha1.LabelServiceNamespace: "split", v1alpha1.LabelSourceCluster: cluster}},
				Ports: []discoveryv1.EndpointPort{{Name: ptr.To(fleet.PortID("TCP", 80)), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("10.18%d.0.1", i+1)}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
					{Addresses: []string{fmt.Sprintf("10.18%d.0.2", i+1)}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}}})
	}
}

// countingEdge is an edge without requests: it reports what an Envoy would whose clients send at a constant rate.
type countingEdge struct {
	f           *fixture
	node        string
	certificate tls.Certificate
	roots       *x509.CertPool
	stop        context.CancelFunc

	mu       sync.Mutex
	rate     float64
	versions map[string]map[string]string // that it holds, by type and name
	weights  map[string]float64           // by sub-zone
	cluster  string
	total    int // load assignments that came
	owed     map[string]float64
	counted  time.Time
}

func newCountingEdge(f *fixture, node string) *countingEdge {
	pair, ca := f.pairFor(f.t.Context(), "split")
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	testkit.Must(f.t, err)
	e := &countingEdge{f: f, node: node, certificate: certificate, roots: x509.NewCertPool(), rate: 100, stop: func() {}, versions: map[string]map[string]string{},
		owed: map[string]float64{}, counted: time.Now()}
	e.roots.AppendCertsFromPEM(ca)
	f.t.Cleanup(func() { e.stop() })
	return e
}

func (e *countingEdge) setRate(rate float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rate = rate
}

// seen is how many load assignments came.
func (e *countingEdge) seen() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.total
}

// part is a cluster's part of the edge's requests.
func (e *countingEdge) part(cluster string) float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := 0.0
	for _, weight := range e.weights {
		sum += weight
	}
	return math.Round(1000*e.weights[cluster+"/split/store"]/sum) / 1000
}

// connect ends the edge's streams, opens new ones to a hub, and reports after a time.
func (e *countingEdge) connect(hub *fixture, reportsAfter time.Duration) {
	t := e.f.t
	t.Helper()
	e.stop()
	connection, err := grpc.NewClient(hub.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{e.certificate}, RootCAs: e.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})))
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = func() { cancel(); _ = connection.Close() }
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	testkit.Must(t, err)
	node := &core.Node{Id: e.node, Cluster: "split"}
	e.mu.Lock()
	held := e.versions[resourcev3.EndpointType]
	requests := []*discovery.DeltaDiscoveryRequest{{Node: node, TypeUrl: resourcev3.ClusterType, InitialResourceVersions: maps.Clone(e.versions[resourcev3.ClusterType])},
		{TypeUrl: resourcev3.ListenerType, InitialResourceVersions: maps.Clone(e.versions[resourcev3.ListenerType])}}
	if len(held) > 0 {
		requests = append(requests, &discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, InitialResourceVersions: maps.Clone(held),
			ResourceNamesSubscribe: []string{e.cluster}})
	}
	e.mu.Unlock()
	for _, request := range requests {
		testkit.Must(t, stream.Send(request))
	}
	go e.receive(stream)
	go e.report(ctx, connection, node, reportsAfter)
}

func (e *countingEdge) receive(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		answers := []*discovery.DeltaDiscoveryRequest{{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}}
		if names := e.take(r); len(names) > 0 {
			answers = append(answers, &discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: names})
		}
		for _, answer := range answers {
			if stream.Send(answer) != nil {
				return
			}
		}
	}
}

// take takes resources, and returns the names of clusters that are new.
func (e *countingEdge) take(r *discovery.DeltaDiscoveryResponse) (clusters []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.versions[r.TypeUrl] == nil {
		e.versions[r.TypeUrl] = map[string]string{}
	}
	for _, one := range r.Resources {
		e.versions[r.TypeUrl][one.Name] = one.Version
		switch r.TypeUrl {
		case resourcev3.ClusterType:
			if strings.Contains(one.Name, "split") {
				clusters = append(clusters, one.Name)
			}
		case resourcev3.EndpointType:
			var assignment endpoint.ClusterLoadAssignment
			if err := one.Resource.UnmarshalTo(&assignment); err != nil {
				continue
			}
			e.total++
			e.cluster, e.weights = one.Name, map[string]float64{}
			for _, l := range assignment.Endpoints {
				if l.Priority == 0 {
					e.weights[l.Locality.SubZone] = float64(l.LoadBalancingWeight.GetValue())
				}
			}
		}
	}
	return clusters
}

// report counts as if requests came all the time, and reports once a second.
func (e *countingEdge) report(ctx context.Context, connection *grpc.ClientConn, node *core.Node, after time.Duration) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	stream, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	for request := (&loadstats.LoadStatsRequest{Node: node}); stream.Send(request) == nil; request = (&loadstats.LoadStatsRequest{ClusterStats: e.count()}) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

func (e *countingEdge) count() []*endpoint.ClusterStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	interval := now.Sub(e.counted)
	e.counted = now
	if e.cluster == "" {
		return nil
	}
	stats := &endpoint.ClusterStats{ClusterName: e.cluster, LoadReportInterval: durationpb.New(interval)}
	sum := 0.0
	for _, weight := range e.weights {
		sum += weight
	}
	for zone, weight := range e.weights {
		exact := e.owed[zone] + e.rate*interval.Seconds()*weight/sum
		n := math.Floor(exact)
		e.owed[zone] = exact - n
		if n > 0 {
			stats.UpstreamLocalityStats = append(stats.UpstreamLocalityStats, &endpoint.UpstreamLocalityStats{
				Locality: &core.Locality{SubZone: zone}, TotalIssuedRequests: uint64(n), TotalSuccessfulRequests: uint64(n)})
		}
	}
	return []*endpoint.ClusterStats{stats}
}
