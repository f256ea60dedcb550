package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

var profileTo = flag.String("profile", "", "file for a profile of the hub while routes change, in TestSize")

var imports = flag.Int("imports", 0, "imports of TestSize, each with 150 endpoints in three clusters and a route of its own; 0: skip it")

// A fleet of a size: how long a written slice takes to reach an edge, and what the hub's memory is. A bare client stands
// in for the Envoy.
func TestSize(t *testing.T) {
	if *imports == 0 {
		t.Skip("no -imports")
	}
	f := newFixture(t)
	f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "size"}})
	f.make(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "127.77.1.0/24"}}}},
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "eu"}, Spec: v1alpha1.EdgePoolSpec{Region: "eu", Addresses: []v1alpha1.AddressBlock{{CIDR: "127.77.2.0/24"}}}},
		&v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "crossway-system"}, Spec: v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway-global"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController,
			ParametersRef: &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "global", Namespace: ptr.To(gatewayv1.Namespace("crossway-system"))}}},
		&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "size"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
			Listeners: []gatewayv1.Listener{{Name: "http", Port: 18080, Protocol: gatewayv1.HTTPProtocolType}}}})
	for i, c := range []string{"c1", "c2", "c3"} {
		f.make(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: c}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}, MaxEndpoints: 1000000}, Region: "us", EndpointCIDRs: []string{fmt.Sprintf("10.%d.0.0/16", i+1)}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-" + c, Labels: map[string]string{v1alpha1.LabelMember: c}}})
	}
	began := time.Now()
	changing := f.fill(*imports)
	t.Logf("filled in %s", time.Since(began))
	hubBinary(t)
	snapshots := "--snapshot-dir=" + t.TempDir()
	began = time.Now()
	f.startHub(snapshots)
	testkit.Eventually(t, "ready", f.ready)
	edge := f.startFakeEdge()
	for edge.count(resourcev3.EndpointType) < *imports { // all exports are new: each is merged, written and reported
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("first start: %s until all is there; %s", time.Since(began), f.memory())
	time.Sleep(5 * time.Second)
	f.stopHub()
	began = time.Now()
	f.startHub(snapshots)
	testkit.Eventually(t, "ready", f.ready)
	t.Logf("ready after %s", time.Since(began))
	edge = f.startFakeEdge()
	testkit.Eventually(t, "all assignments", func() bool { return edge.count(resourcev3.EndpointType) >= *imports })
	t.Logf("restart: %s until a fresh edge has all; %s", time.Since(began), f.memory())
	time.Sleep(3 * time.Second)
	var took []time.Duration
	for i := range 200 {
		s := changing[i%len(changing)]
		s.Endpoints[7].Conditions.Ready = ptr.To(i/len(changing)%2 == 1)
		version := edge.seen()
		begin := time.Now()
		testkit.Must(t, f.Update(t.Context(), s))
		wrote := time.Since(begin)
		edge.after(version)
		took = append(took, time.Since(begin))
		if i < 5 {
			t.Logf("write %s, whole %s", wrote, took[i])
		}
	}
	f.changeRoutes()
	slices.Sort(took)
	t.Logf("%d imports: slice write -> edge p50 %s p99 %s max %s; %s", *imports, took[100], took[197], took[199], f.memory())
}

// changeRoutes changes a route ten times a second, and logs what the hub takes for it.
func (f *fixture) changeRoutes() {
	const changes = 200
	change := func(to string) {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range changes {
			patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/rules/0/matches","value":[{"path":{"type":"PathPrefix","value":"/%s/%d"}}]}]`, to, i)
			route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "size", Name: fmt.Sprintf("s%d", i%*imports)}}
			testkit.Must(f.t, f.Patch(f.t.Context(), route, client.RawPatch(types.JSONPatchType, []byte(patch))))
			<-tick.C
		}
	}
	change("first") // a rule for "/" that is there no longer has a whole Build
	time.Sleep(10 * time.Second)
	f.t.Logf("before %d changes of routes: %s", changes, f.memory())
	profiled := make(chan []byte)
	go func() {
		defer close(profiled)
		answer, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", f.debug, changes/10))
		if err != nil {
			return
		}
		defer answer.Body.Close()
		profile, _ := io.ReadAll(answer.Body)
		profiled <- profile
	}()
	change("second")
	f.t.Logf("after them: %s", f.memory())
	if profile := <-profiled; *profileTo != "" {
		testkit.Must(f.t, os.WriteFile(*profileTo, profile, 0o600))
	}
}

// memory is the hub's, and the processor time that it used, from its process status.
func (f *fixture) memory() string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.hub.Process.Pid))
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.hub.Process.Pid))
	var user, system int
	if fields := strings.Fields(string(stat)); len(fields) > 14 {
		user, _ = strconv.Atoi(fields[13])
		system, _ = strconv.Atoi(fields[14])
	}
	return fmt.Sprintf("%s, %d ms CPU", regexp.MustCompile(`Vm(HWM|RSS):\s+\d+ kB`).FindAllString(string(status), -1), (user+system)*10)
}

// fill makes n imports with 50 endpoints in each of three clusters and a route; it returns a slice of each.
func (f *fixture) fill(n int) []*discoveryv1.EndpointSlice {
	changing := make([]*discoveryv1.EndpointSlice, n)
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := w; i < n; i += 8 {
				changing[i] = f.fillOne(i)
			}
		})
	}
	group.Wait()
	return changing
}

func (f *fixture) fillOne(i int) (changing *discoveryv1.EndpointSlice) {
	name := fmt.Sprintf("s%d", i)
	for c := range 3 {
		cluster := fmt.Sprintf("c%d", c+1)
		f.make(&v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + cluster, Name: name + ".size"}, Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: "size", Name: name}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}})
		s := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + cluster, Name: name, Labels: map[string]string{
				v1alpha1.LabelServiceName: name, v1alpha1.LabelServiceNamespace: "size", v1alpha1.LabelSourceCluster: cluster}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(fleet.PortID("TCP", 80)), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
		}
		for k := range 50 {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", c+1, i/4, i%4*60+k)}, Zone: ptr.To("z" + cluster),
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}})
		}
		f.make(s)
		changing = s
	}
	f.make(&gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "size"}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "shared"}}},
		Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(name + ".example.com")},
		Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Group: ptr.To(gatewayv1.Group("multicluster.x-k8s.io")), Kind: ptr.To(gatewayv1.Kind("ServiceImport")), Name: gatewayv1.ObjectName(name), Port: ptr.To(gatewayv1.PortNumber(80))}}}}}}}})
	return changing
}

// fakeEdge takes everything, as an Envoy would, and counts.
type fakeEdge struct {
	mu    sync.Mutex
	came  *sync.Cond
	names map[string]map[string]bool
	total int
}

func (e *fakeEdge) count(typeURL string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.names[typeURL])
}

func (e *fakeEdge) seen() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.total
}

func (e *fakeEdge) after(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.total <= n {
		e.came.Wait()
	}
}

func (f *fixture) startFakeEdge() *fakeEdge {
	t := f.t
	pair, ca := f.pairFor(t.Context(), "us")
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	testkit.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection, err := grpc.NewClient(f.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost"})))
	testkit.Must(t, err)
	t.Cleanup(func() { connection.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	testkit.Must(t, err)
	e := &fakeEdge{names: map[string]map[string]bool{}}
	e.came = sync.NewCond(&e.mu)
	node := &core.Node{Id: "fake", Cluster: "us"}
	testkit.Must(t, stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: resourcev3.ClusterType}))
	testkit.Must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.ListenerType}))
	go e.receive(stream)
	return e
}

func (e *fakeEdge) receive(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		var names []string
		e.mu.Lock()
		if e.names[r.TypeUrl] == nil {
			e.names[r.TypeUrl] = map[string]bool{}
		}
		for _, one := range r.Resources {
			e.names[r.TypeUrl][one.Name] = true
			names = append(names, one.Name)
		}
		if r.TypeUrl == resourcev3.EndpointType {
			e.total++
			e.came.Broadcast()
		}
		e.mu.Unlock()
		_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
		if r.TypeUrl == resourcev3.ClusterType {
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: names})
		}
	}
}
