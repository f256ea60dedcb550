package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway/reconciler"
)

// An Envoy with RE2's own limit knows less than the hub assumes. Beside another
// one in its pool it alone gets the last generation that it took of a route, and
// every other change; where all Envoys of a pool are like it, the pool does. A
// restarted hub goes on with that. A client with a certificate that NACKs all
// that it gets changes nothing for them.
func TestEdgesThatRefuse(t *testing.T) {
	f := newFixture(t)
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	f.makeGateway()
	t.Cleanup(func() { // for another run on this API server
		testkit.Must(t, f.DeleteAllOf(context.Background(), &gatewayv1.HTTPRoute{}, client.InNamespace("shop")))
	})
	f.setRoute("heavy", "/heavy/[a-z]+")
	f.setRoute("beside", "/first")
	newer, strict, alone := edge{"us", "newer", freeAddress(t), 3000}, edge{"us", "strict", freeAddress(t), 100}, edge{"eu", "alone", freeAddress(t), 100}
	for _, e := range []edge{newer, strict, alone} {
		f.start(t.Context(), e)
	}
	const light, heavy, mended = "/heavy/[a-z]+", "/heavy/[a-z]{150}", "/heavy/[0-9]+"
	f.expect("at first", map[edge][]string{newer: {light, "/first"}, strict: {light, "/first"}, alone: {light, "/first"}})

	f.setRoute("heavy", heavy)
	refused := map[edge][]string{newer: {heavy, "/first"}, strict: {light, "/first", "!" + heavy}, alone: {light, "/first", "!" + heavy}}
	f.expect("two refuse it", refused)
	f.expectRefused()

	f.setRoute("beside", "/second")
	refused = map[edge][]string{newer: {heavy, "/second"}, strict: {light, "/second", "!" + heavy}, alone: {light, "/second", "!" + heavy}}
	f.expect("a neighbour changes", refused)

	f.nackAll(t.Context(), "us")
	f.setRoute("beside", "/third")
	refused = map[edge][]string{newer: {heavy, "/third"}, strict: {light, "/third", "!" + heavy}, alone: {light, "/third", "!" + heavy}}
	f.expect("beside an edge that NACKs all", refused)

	f.stopHub()
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	time.Sleep(2 * time.Second) // all have answered it
	f.expect("after a restart of the hub", refused)
	f.expectRefused()
	f.setRoute("beside", "/fourth")
	f.expect("and a change", map[edge][]string{newer: {heavy, "/fourth"}, strict: {light, "/fourth", "!" + heavy}, alone: {light, "/fourth", "!" + heavy}})

	late := edge{"us", "late", freeAddress(t), 100}
	f.start(t.Context(), late)
	f.expect("one more that starts with nothing", map[edge][]string{newer: {heavy, "/fourth"}, late: {"/fourth", "!" + heavy}})

	f.setRoute("heavy", mended)
	f.expect("it is mended", map[edge][]string{newer: {mended, "/fourth"}, strict: {mended, "/fourth"}, alone: {mended, "/fourth"}, late: {mended, "/fourth"}})
	testkit.EventuallySeen(t, "nothing is refused any more", func() (bool, any) {
		var records appsv1.ControllerRevisionList
		testkit.Must(t, f.List(t.Context(), &records, client.InNamespace("crossway-system"), reconciler.RefusalSelector()))
		refused, eu := f.routeCondition(condition.RefusedInPools), f.poolCondition("eu")
		return len(records.Items) == 0 && refused == nil && eu.Status == metav1.ConditionTrue,
			fmt.Sprintf("%d records, on the route %+v, on the EdgePool %+v", len(records.Items), refused, eu)
	})
}

func (f *fixture) makeGateway() {
	for i, pool := range []string{"us", "eu"} {
		f.make(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: pool}, Spec: v1alpha1.EdgePoolSpec{Region: pool,
			Addresses: []v1alpha1.AddressBlock{{CIDR: []string{"127.77.1.0/24", "127.77.2.0/24"}[i]}}}})
	}
	f.make(
		&v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "crossway-system"}, Spec: v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway-global"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController,
			ParametersRef: &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "global", Namespace: ptr.To(gatewayv1.Namespace("crossway-system"))}}},
		&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "refused", Namespace: "shop"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
			Listeners: []gatewayv1.Listener{{Name: "http", Port: 18081, Protocol: gatewayv1.HTTPProtocolType}}}},
	)
}

// setRoute creates or changes a route with a regular expression for its path.
func (f *fixture) setRoute(name, path string) {
	f.t.Helper()
	spec := gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "refused"}}},
		Hostnames: []gatewayv1.Hostname{"store.example.com"},
		Rules: []gatewayv1.HTTPRouteRule{{Matches: []gatewayv1.HTTPRouteMatch{{
			Path: &gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchRegularExpression), Value: &path}}}}}}
	f.make(&gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: spec})
	testkit.Must(f.t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var stored gatewayv1.HTTPRoute
		if err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &stored); err != nil {
			return err
		}
		stored.Spec = spec
		return f.Update(f.t.Context(), &stored)
	}))
}

// expect waits until each Envoy has the paths, and does not have those after "!".
func (f *fixture) expect(what string, want map[edge][]string) {
	f.t.Helper()
	for e, paths := range want {
		testkit.Eventually(f.t, what+": "+e.node+" has "+strings.Join(paths, ", "), func() bool {
			dump := routesOn(e)
			for _, path := range paths {
				if name, absent := strings.CutPrefix(path, "!"); strings.Contains(dump, name) == absent {
					return false
				}
			}
			return true
		})
	}
}

// routesOn are the RouteConfigurations that an Envoy has.
func routesOn(e edge) string {
	return textAt("http://" + e.admin + "/config_dump?resource=dynamic_route_configs")
}

// textAt is what a URL has; empty where nobody answers.
func textAt(url string) string {
	answer, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// expectRefused checks what is said: eu refuses the route, and of us one edge.
func (f *fixture) expectRefused() {
	f.t.Helper()
	testkit.Eventually(f.t, "the route is accepted, and names the pool", func() bool {
		c := f.routeCondition(condition.RefusedInPools)
		return c != nil && strings.Contains(c.Message, `EdgePool "eu" serves generation 1`) && !strings.Contains(c.Message, `"us"`) &&
			f.routeCondition("Accepted").Status == metav1.ConditionTrue && f.routeCondition("Accepted").ObservedGeneration == 2
	})
	for pool, node := range map[string]string{"us": "strict", "eu": "alone"} {
		testkit.Eventually(f.t, "EdgePool "+pool+" names its edge", func() bool {
			c := f.poolCondition(pool)
			return c.Status == metav1.ConditionFalse && strings.Contains(c.Message, `edge "`+node+`" refuses HTTPRoute shop/heavy`) && !strings.Contains(c.Message, "newer")
		})
	}
}

func (f *fixture) routeCondition(conditionType string) *metav1.Condition {
	var route gatewayv1.HTTPRoute
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Namespace: "shop", Name: "heavy"}, &route))
	if len(route.Status.Parents) == 0 {
		return nil
	}
	return meta.FindStatusCondition(route.Status.Parents[0].Conditions, conditionType)
}

func (f *fixture) poolCondition(name string) metav1.Condition {
	var pool v1alpha1.EdgePool
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Name: name}, &pool))
	return ptr.Deref(meta.FindStatusCondition(pool.Status.Conditions, condition.EdgePoolConfigurationType), metav1.Condition{})
}

// nackAll is an edge of a pool that NACKs all that it gets, until the test ends. It
// quotes a value of a route that did not change.
func (f *fixture) nackAll(ctx context.Context, pool string) {
	f.t.Helper()
	pair, ca := f.pairFor(ctx, pool)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	testkit.Must(f.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection, err := grpc.NewClient(f.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})))
	testkit.Must(f.t, err)
	f.t.Cleanup(func() { _ = connection.Close() })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	testkit.Must(f.t, err)
	for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.RouteType} {
		request := &discovery.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "hostile", Locality: &corev3.Locality{Region: pool, Zone: pool + "-a"}}, TypeUrl: typeURL}
		if typeURL == resourcev3.RouteType {
			request.ResourceNamesSubscribe = []string{"shop/refused/18081"}
		}
		testkit.Must(f.t, stream.Send(request))
	}
	nacked := make(chan struct{}, 1)
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				return
			}
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce,
				ErrorDetail: &rpcstatus.Status{Message: "bad regex '/second' and '/heavy/[a-z]{150}'"}})
			if response.TypeUrl == resourcev3.RouteType && len(response.Resources) > 0 {
				select {
				case nacked <- struct{}{}:
				default:
				}
			}
		}
	}()
	select {
	case <-nacked:
	case <-time.After(20 * time.Second):
		f.t.Fatal("the hostile edge gets no routes")
	}
}
