package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// A hub on an empty cluster makes its certificates and serves; a member's export, a Gateway and a route become an
// answered request through a real Envoy; a changed slice reaches it; killed and started again, the hub sends the Envoy
// nothing that it has.
func TestHub(t *testing.T) {
	f := newFixture(t)
	f.startHub()
	at, slice := f.serve()

	// No endpoint any more: 503; then again.
	slice.Endpoints[0].Conditions.Ready = ptr.To(false)
	testkit.Must(t, f.Update(t.Context(), slice))
	testkit.Eventually(t, "503 without an endpoint", func() bool { status, _ := ask(at, "store.example.com", "/"); return status == 503 })
	slice.Endpoints[0].Conditions.Ready = ptr.To(true)
	testkit.Must(t, f.Update(t.Context(), slice))
	testkit.Eventually(t, "200 with one", func() bool { status, _ := ask(at, "store.example.com", "/"); return status == 200 })

	f.restartChangesNothing(at)
}

// serve makes a fleet of one member, a Gateway and a route, and an edge that serves them. It returns the Gateway's address
// and the member's slice once a request is answered.
func (f *fixture) serve() (at string, slice *discoveryv1.EndpointSlice) {
	t := f.t
	address, port := backend(t)
	f.make(
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "127.77.1.0/24"}}}},
		&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: "us", Zone: "us-a", EndpointCIDRs: []string{address + "/32"}}},
		&v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "crossway-system"}, Spec: v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway-global"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController,
			ParametersRef: &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "global", Namespace: ptr.To(gatewayv1.Namespace("crossway-system"))}}},
	)
	testkit.Eventually(t, "the hub is ready", f.ready)
	testkit.Eventually(t, "the member's namespace", func() bool {
		return f.Get(t.Context(), client.ObjectKey{Name: "member-us-west"}, &corev1.Namespace{}) == nil
	})
	slice = f.export(address, port)
	f.make(&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "shop"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
		Listeners: []gatewayv1.Listener{{Name: "http", Port: 18080, Protocol: gatewayv1.HTTPProtocolType}}}},
		routeTo("store", "store.example.com"))
	f.startEdge(t.Context())

	var gateway gatewayv1.Gateway
	testkit.Eventually(t, "an answered request", func() bool {
		testkit.Must(t, f.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shared"}, &gateway))
		for _, a := range gateway.Status.Addresses {
			if strings.HasPrefix(a.Value, "127.77.1.") { // of pool us; another test may have made another pool
				at = a.Value + ":18080"
			}
		}
		status, body := ask(at, "store.example.com", "/hello")
		return status == 200 && body == "/hello for store.example.com"
	})
	testkit.Eventually(t, "the Gateway is programmed", func() bool {
		testkit.Must(t, f.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shared"}, &gateway))
		return meta.IsStatusConditionTrue(gateway.Status.Conditions, "Programmed")
	})
	return at, slice
}

// sent are the counters that change when an Envoy is sent something new; the answer to a first request for all clusters or
// listeners is counted as an update even where it is empty.
const sent = `(^cluster\..*\.(update_success|update_rejected)|config_reload|(cluster|listener)_(added|modified|removed|updated)|update_rejected)$`

// restartChangesNothing kills the hub and starts it again. The Envoy must be sent nothing but a route that was made
// after that.
func (f *fixture) restartChangesNothing(at string) {
	t := f.t
	f.stopHub()
	if status, body := ask(at, "store.example.com", "/"); status != 200 {
		t.Errorf("without a hub: %d %s", status, body)
	}
	before := f.counters(sent)
	f.startHub()
	testkit.Eventually(t, "the edge is back", func() bool {
		return strings.Contains(f.counters("control_plane.connected_state"), "connected_state: 1")
	})
	time.Sleep(7 * time.Second) // as long as learned shares may be kept, and more: nothing may come
	if after := f.counters(sent); after != before {
		t.Errorf("the restarted hub sent\n%s\nbefore\n%s", after, before)
	}
	f.make(routeTo("late", "late.example.com"))
	testkit.Eventually(t, "a route made after the restart", func() bool { status, _ := ask(at, "late.example.com", "/"); return status == 200 })
}

func (f *fixture) export(address string, port int32) *discoveryv1.EndpointSlice {
	f.make(&v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-west", Name: "store.shop"}, Spec: v1alpha1.MemberExportSpec{
		Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "store"}, ExportedAt: metav1.Now(),
		ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
		Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}})
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-west", Name: "store-abc", Labels: map[string]string{
			v1alpha1.LabelServiceName: "store", v1alpha1.LabelServiceNamespace: "shop", v1alpha1.LabelSourceCluster: "us-west"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(fleet.PortID("TCP", 80)), Port: &port, Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
	}
	_ = f.Delete(f.t.Context(), slice.DeepCopy()) // of an earlier test
	f.make(slice)
	return slice
}

func routeTo(name, host string) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "shared"}}},
		Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(host)},
		Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Group: ptr.To(gatewayv1.Group("multicluster.x-k8s.io")), Kind: ptr.To(gatewayv1.Kind("ServiceImport")), Name: "store", Port: ptr.To(gatewayv1.PortNumber(80))}}}}}}}}
}
