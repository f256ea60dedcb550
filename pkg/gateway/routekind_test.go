package gateway

import (
	"slices"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// withPingRoutes adds a kind of route to the table, for one test.
func withPingRoutes(t *testing.T) {
	before := routeKinds
	t.Cleanup(func() { routeKinds = before })
	routeKinds = append(slices.Clip(routeKinds), NewRouteKind(pingKind, &gatewayv1.GRPCRouteList{}, fromPingRoute, model.HTTP))
}

// twoKinds is a fleet with an HTTPRoute and a PingRoute of one name, with the
// same parent and backends, that take the same requests.
func twoKinds(t *testing.T) Input {
	f := newFixture(t)
	f.add(baseObjects)
	f.add(`
kind: HTTPRoute
metadata: {name: store, namespace: shop, creationTimestamp: "2026-05-01T00:00:00Z"}
spec:
  parentRefs: [{name: shared, namespace: infra}]
  rules: [{matches: [{path: {type: Exact, value: /ping}, method: GET}], backendRefs: [{name: store, port: 80}]}]
`)
	f.in.Routes = append(f.in.Routes, pingOf(f.in.Routes[0]))
	return f.in
}

// pingOf is a PingRoute of the same name, age, parents and backends as an HTTPRoute.
func pingOf(route *Route) *Route {
	ping := &gatewayv1.GRPCRoute{}
	o := objectOf(route)
	ping.ObjectMeta, ping.Spec.CommonRouteSpec = o.ObjectMeta, o.Spec.CommonRouteSpec
	for _, rule := range o.Spec.Rules {
		next := gatewayv1.GRPCRouteRule{}
		for _, ref := range rule.BackendRefs {
			next.BackendRefs = append(next.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: ref.BackendRef})
		}
		ping.Spec.Rules = append(ping.Spec.Rules, next)
	}
	return fromPingRoute(ping)
}

// A listener accepts the kinds of routes that its protocol and its allowedRoutes
// allow.
func TestListenersAcceptRouteKinds(t *testing.T) {
	withPingRoutes(t)
	f := newFixture(t)
	f.add(baseObjects)
	f.addSecret("infra/shop", "good")
	f.add(`
kind: Gateway
metadata: {name: shared, namespace: infra}
spec:
  gatewayClassName: crossway
  listeners:
  - {name: any, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: ping, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: PingRoute}]}}
  - {name: http, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}}
  - {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop}]}, allowedRoutes: {namespaces: {from: All}}}
  - {name: wrong, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: shop}]}, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: PingRoute}]}}
---
kind: HTTPRoute
metadata: {name: store, namespace: shop}
spec: {parentRefs: [{name: shared, namespace: infra}], rules: [{backendRefs: [{name: store, port: 80}]}]}
---
kind: HTTPRoute
metadata: {name: secure, namespace: shop}
spec: {parentRefs: [{name: shared, namespace: infra, sectionName: tls}], rules: [{backendRefs: [{name: store, port: 80}]}]}
`)
	f.in.Routes = append(f.in.Routes, pingOf(f.in.Routes[0]), pingOf(f.in.Routes[1]))
	got := describeReports(Report(Build(f.in), nil), "", "")
	for _, want := range []string{
		"listener any [HTTPRoute PingRoute] attached=2\n", "listener ping [PingRoute] attached=1\n", "listener http [HTTPRoute] attached=1\n",
		"listener tls [HTTPRoute] attached=2\n", "listener wrong [] attached=0\n",
		`allowedRoutes names kinds "PingRoute" that cannot attach here; use HTTPRoute` + "\n",
		"PingRoute shop/store @1\n  parent shared\n    Accepted=True",
		`PingRoute shop/secure @1` + "\n  parent shared section tls\n    Accepted=False NotAllowedByListeners: " +
			`no listener of Gateway "infra/shared" that the parentRef selects allows PingRoutes of namespace "shop"; ask its owner to change allowedRoutes`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// The assignment keys of HTTPRoutes are names of Envoy clusters: no release changes them.
func TestKeyOfAnHTTPRoute(t *testing.T) {
	backends := []model.WeightedBackend{
		{Backend: fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "green"}}, Port: 8080},
		{Backend: fleet.Backend{Kind: fleet.Service, Name: fleet.ServiceName{Namespace: "shop", Name: "store"}}, Port: 80},
	}
	ref := fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: "shop", Name: "store"}}
	if got := assignmentKey(ref, model.HTTP1, backends[1:]); got != "shop/store/4a935769f9" {
		t.Errorf("one backend: %s", got)
	}
	if got := assignmentKey(ref, model.HTTP1, backends); got != "shop/store/d055e62a74" {
		t.Errorf("two backends: %s", got)
	}
}

// Two routes of one name and different kinds are separate: in assignments, reports,
// NACKs and the Memo.
func TestRoutesOfDifferentKindsAreSeparate(t *testing.T) {
	withPingRoutes(t)
	in := twoKinds(t)
	http, ping := in.Routes[0].Ref, in.Routes[1].Ref
	result := Build(in)
	if n := len(result.Model.Assignments); n != 2 || result.Model.Assignments[0].Route == result.Model.Assignments[1].Route {
		t.Fatalf("assignments %+v", result.Model.Assignments)
	}
	for _, a := range result.Model.Assignments {
		if a.Route == http != (a.Key == "shop/store/4a935769f9") || !keyPattern.MatchString(a.Key) {
			t.Errorf("%s has key %s", a.Route, a.Key)
		}
	}
	got := describeReports(Report(result, nil), "", "shop/store")
	const want = `PingRoute shop/store @1
  parent shared
    Accepted=True Accepted
    ResolvedRefs=True ResolvedRefs
    Shadowed=True SameMatch: rules[0].matches[0] on host "*" never applies: HTTPRoute "shop/store" has the same match and comes first; change one of them
`
	if !strings.HasPrefix(got, "HTTPRoute shop/store @1\n") || strings.Count(got, "Shadowed") != 1 || !strings.HasSuffix(got, want) {
		t.Errorf("reports\n%s", got)
	}

	// A refusal of one route is not a refusal of the other.
	refusal := Refusal{Ref: condition.Ref{Kind: ping.Kind, Name: ping.Name, Generation: 1}, PoolRefusal: condition.PoolRefusal{Pool: "us"}}
	if got := describeReports(Report(result, nil, refusal), "", "shop/store"); strings.Count(got, "RefusedInPools=True") != 1 || strings.Index(got, "RefusedInPools") < strings.Index(got, "PingRoute") {
		t.Errorf("reports after a NACK\n%s", got)
	}

	// The Memo's result of one route is not used for the other.
	in.Memo = result.Memo
	in.Routes = slices.Clone(in.Routes)
	in.Routes[0] = revised(in.Routes[0], func(r *gatewayv1.HTTPRoute) { r.Spec.Rules[0].BackendRefs[0].Name = "gone" })
	changed := Build(in)
	in.Memo = nil
	if !same(changed, Build(in)) || len(changed.Model.Assignments) != 1 || changed.Model.Assignments[0].Route != ping {
		t.Errorf("after the HTTPRoute changed: %+v", changed.Model.Assignments)
	}
}

// A changed route of one kind is patched although a route of another kind has the
// same name.
func TestRoutesOfDifferentKindsArePatched(t *testing.T) {
	withPingRoutes(t)
	in := twoKinds(t)
	objectOf(in.Routes[0]).Spec.Hostnames = []gatewayv1.Hostname{"store.example.com"} // a host each
	last := Build(in)
	in.Memo, in.Routes = last.Memo, slices.Clone(in.Routes)
	in.Routes[1] = pingOf(revised(in.Routes[0], func(*gatewayv1.HTTPRoute) {})) // generation 2
	patched := Build(in)
	in.Memo = nil
	if whole := Build(in); !same(whole, patched) || same(whole, last) {
		t.Errorf("patched:\n%s\nwhole:\n%s", describeModel(patched.Model), describeModel(whole.Model))
	}
}
