package gateway

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// BenchmarkBuild1000 is one changed route among 1000 on one Gateway, each with
// its own hostname and import: the cost of a route's change in Build.
func BenchmarkBuild1000(b *testing.B) {
	in := bigInput(1000)
	in.Memo = Build(in).Memo
	for i := 0; b.Loop(); i++ {
		result := change(&in, i)
		if len(result.Model.Assignments) != len(in.Routes) {
			b.Fatal("routes are missing")
		}
		in.Memo = result.Memo
	}
}

// change builds after one route has become another version.
func change(in *Input, i int) Result {
	at := i % len(in.Routes)
	in.Routes = slices.Clone(in.Routes)
	in.Routes[at] = revised(in.Routes[at], func(*gatewayv1.HTTPRoute) {})
	return Build(*in)
}

// BenchmarkBuild1000Cold is the first Build of a hub that has just started.
func BenchmarkBuild1000Cold(b *testing.B) {
	in := bigInput(1000)
	for b.Loop() {
		Build(in)
	}
}

// BenchmarkBuild1000OneHost is one changed route among 1000 on one hostname,
// whose rules are put in order together.
func BenchmarkBuild1000OneHost(b *testing.B) {
	in := bigInput(1000)
	for i, route := range in.Routes {
		objectOf(route).Spec.Hostnames = []gatewayv1.Hostname{"shop.example.com"}
		objectOf(route).Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: new(fmt.Sprintf("/%d", i))}}}
	}
	in.Memo = Build(in).Memo
	for i := 0; b.Loop(); i++ {
		in.Memo = change(&in, i).Memo
	}
}

func bigInput(routes int) Input {
	in := Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "shared"}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "crossway",
			Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: &gatewayv1.AllowedRoutes{
				Namespaces: &gatewayv1.RouteNamespaces{From: new(gatewayv1.NamespacesFromAll)},
			}}},
		}}},
	}
	for i := range routes {
		name := fmt.Sprintf("app-%d", i)
		route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name), ResourceVersion: "1", Generation: 1,
			CreationTimestamp: metav1.NewTime(epoch.Add(time.Duration(i*7919%routes) * time.Second)),
		}}
		route.Spec.ParentRefs = []gatewayv1.ParentReference{{Namespace: new(gatewayv1.Namespace("infra")), Name: "shared"}}
		route.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(name + ".example.com")}
		route.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Group: new(gatewayv1.Group(mcsv1beta1.GroupName)), Kind: new(gatewayv1.Kind("ServiceImport")), Name: gatewayv1.ObjectName(name), Port: new(gatewayv1.PortNumber(8080)),
		}}}}}}
		in.Routes = append(in.Routes, FromHTTPRoute(route))
		imported := v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: name + ".shop"}}
		imported.Spec.Service = v1alpha1.ServiceReference{Namespace: "shop", Name: name}
		imported.Spec.Ports = []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Port: 8080}}}
		in.Imports = append(in.Imports, imported)
	}
	return in
}

// BenchmarkBuild1000Tenants is one changed route among 1000 of 50 namespaces on one
// hostname, some with regular expressions: who takes requests from whom is found
// anew.
func BenchmarkBuild1000Tenants(b *testing.B) {
	in := bigInput(1000)
	for i, route := range in.Routes {
		object := objectOf(route)
		object.Namespace = fmt.Sprintf("team-%d", i%50)
		object.Spec.Hostnames = []gatewayv1.Hostname{"shop.example.com"}
		path := &gatewayv1.HTTPPathMatch{Value: new(fmt.Sprintf("/%d", i))}
		if i%25 == 0 {
			path = &gatewayv1.HTTPPathMatch{Type: new(gatewayv1.PathMatchRegularExpression), Value: new(fmt.Sprintf("/[0-9]+/%d/.*", i))}
		}
		object.Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Path: path}}
		in.Routes[i] = FromHTTPRoute(object)
	}
	in.Memo = Build(in).Memo
	for i := 0; b.Loop(); i++ {
		in.Memo = change(&in, i).Memo
	}
}
