package gateway

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Generators of whole snapshots. They use few names, so that objects refer to each
// other and conflict. Some values are invalid, also for the API server.

var (
	genNamespace = rapid.SampledFrom([]string{"a", "b"})
	genName      = rapid.SampledFrom([]string{"x", "y", "z"})
	genHostname  = mostly([]string{"example.com", "a.example.com", "*.example.com", "b.a.example.com", "*.a.example.com"}, []string{"x.org", "A.example.com", "a.*.com"})
	genPath      = mostly([]string{"/", "/a", "/a/", "/a/b", "/A", "/b"}, []string{"a", "", "/a//b", "/a?b", "/%2f", "/a b", "/\n"})
	genRegex     = mostly([]string{"/.*", "/(a|b)/[0-9]{1,9}", `/\d+`}, []string{"(", "(?=a)", "", "a{1001}", "\xff"})
	genToken     = mostly([]string{"x-a", "X-A", "x-b"}, []string{"host", ":path", "x y", "", "é", "content-length"})
	genValue     = mostly([]string{"1", "2", "%REQ(a)%", "100%"}, []string{"", "a\nb"})
	genDuration  = mostly([]string{"1s", "0s", "10ms", "99999h"}, []string{"-1s", "soon", ""})
	genPort      = mostly([]int32{80, 80, 81}, []int32{443, 0, 70000})
	genWeight    = mostly([]int32{1, 2, 9, 100, 0}, []int32{-1, 2_000_000})
	genKind      = mostly([]gatewayv1.PathMatchType{"Exact", "PathPrefix", "RegularExpression"}, []gatewayv1.PathMatchType{"?"})
	genProtocol  = mostly([]gatewayv1.ProtocolType{"HTTP", "HTTPS"}, []gatewayv1.ProtocolType{"TLS", ""})
	genFrom      = mostly([]gatewayv1.FromNamespaces{"All", "All", "Selector"}, []gatewayv1.FromNamespaces{"Same", "None"})
	genMethod    = mostly([]gatewayv1.HTTPMethod{"GET", "POST"}, []gatewayv1.HTTPMethod{"CONNECT", "a b"})
	genPercent   = mostly([]int32{0, 20, 100}, []int32{-1, 101})
	genSecrets   = mostly([]string{"good"}, []string{"mismatch", "garbage", "no-key"})
)

// mostly draws from good, and in one of 20 cases from bad.
func mostly[T any](good, bad []T) *rapid.Generator[T] {
	return rapid.Custom(func(t *rapid.T) T {
		if rarely(t) {
			return rapid.SampledFrom(bad).Draw(t, "bad")
		}
		return rapid.SampledFrom(good).Draw(t, "good")
	})
}

func rarely(t *rapid.T) bool { return rapid.IntRange(0, 19).Draw(t, "rarely") == 19 }

func maybe[T any](gen *rapid.Generator[T]) *rapid.Generator[*T] { return rapid.Ptr(gen, true) }

func genMeta(t *rapid.T) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: genNamespace.Draw(t, "namespace"), Name: genName.Draw(t, "name"),
		Generation:        int64(rapid.IntRange(1, 3).Draw(t, "generation")),
		CreationTimestamp: metav1.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0),
	}
}

// genObjects draws objects of different names. Their UIDs depend on their names.
func genObjects[T any, O interface {
	*T
	metav1.Object
}](t *rapid.T, least, most int, draw func(*rapid.T) T) []T {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) T {
		object := draw(t)
		meta := O(&object)
		meta.SetUID(types.UID(fmt.Sprintf("%T/%s/%s", object, meta.GetNamespace(), meta.GetName())))
		return object
	}), least, most, func(object T) string { return O(&object).GetNamespace() + "/" + O(&object).GetName() }).Draw(t, "objects")
}

func genInput(tb testing.TB) *rapid.Generator[Input] {
	return rapid.Custom(func(t *rapid.T) Input {
		in := Input{
			GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "ours"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
			Gateways:       genObjects(t, 3, 6, genGateway),
			Routes:         adapted(genObjects(t, 2, 5, genRoute)),
			Grants:         genObjects(t, 0, 2, genGrant),
			Secrets:        genObjects(t, 1, 4, func(t *rapid.T) corev1.Secret { return genSecret(tb, t) }),
			Imports:        genObjects(t, 5, 6, genImport),
			Services:       genObjects(t, 2, 4, genService),
			Policies:       genObjects(t, 0, 3, genPolicy),
			Pools:          genObjects(t, 1, 2, genPool),
			Parameters:     genObjects(t, 0, 4, genParameters),
			ServiceImports: genObjects(t, 0, 4, func(t *rapid.T) mcsv1beta1.ServiceImport { return mcsv1beta1.ServiceImport{ObjectMeta: genMeta(t)} }),
			Namespaces:     []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"l": "1"}}}},
		}
		if rapid.IntRange(0, 2).Draw(t, "budgets") == 2 {
			tighten(t, &in)
		}
		return in
	})
}

func genGateway(t *rapid.T) gatewayv1.Gateway {
	gateway := gatewayv1.Gateway{ObjectMeta: genMeta(t)}
	gateway.Spec.GatewayClassName = "ours"
	if rarely(t) {
		gateway.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{
			Group: "crossway.dev", Kind: "GatewayParameters", Name: genName.Draw(t, "parameters")}}
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "listeners") {
		l := gatewayv1.Listener{
			Name: gatewayv1.SectionName(fmt.Sprintf("l%d", i)), Port: genPort.Draw(t, "port"),
			Protocol: genProtocol.Draw(t, "protocol"),
		}
		l.Hostname = (*gatewayv1.Hostname)(maybe(genHostname).Draw(t, "hostname"))
		if l.Protocol == "HTTPS" || rarely(t) {
			l.TLS = &gatewayv1.ListenerTLSConfig{}
			for range rapid.IntRange(0, 2).Draw(t, "certificates") {
				l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, gatewayv1.SecretObjectReference{
					Name: gatewayv1.ObjectName(genName.Draw(t, "secret")), Namespace: (*gatewayv1.Namespace)(maybe(genNamespace).Draw(t, "in"))})
			}
		}
		from := genFrom.Draw(t, "from")
		l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"l": "1"}}}}
		gateway.Spec.Listeners = append(gateway.Spec.Listeners, l)
	}
	return gateway
}

// tighten gives the class budgets that a few routes fill.
func tighten(t *rapid.T, in *Input) {
	in.Parameters = append(in.Parameters, v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Namespace: "budgets", Name: "tight"},
		Spec: v1alpha1.GatewayParametersSpec{Budgets: v1alpha1.Budgets{Route: genBudget(t), Namespace: genBudget(t), Gateway: genBudget(t)}}})
	in.GatewayClasses[0].Spec.ParametersRef = &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "tight", Namespace: new(gatewayv1.Namespace("budgets"))}
}

// genBudget is a budget that a few routes fill.
func genBudget(t *rapid.T) (b v1alpha1.Budget) {
	b.Routes = maybe(rapid.Int32Range(0, 30)).Draw(t, "routes")
	b.Clusters = maybe(rapid.Int32Range(0, 5)).Draw(t, "clusters")
	b.MatchMicroseconds = maybe(rapid.Int32Range(0, 3)).Draw(t, "microseconds")
	return b
}

func genParameters(t *rapid.T) v1alpha1.GatewayParameters {
	p := v1alpha1.GatewayParameters{ObjectMeta: genMeta(t)}
	if rapid.Bool().Draw(t, "regional") {
		p.Spec.Scope, p.Spec.Region = v1alpha1.Regional, rapid.SampledFrom([]string{"us", "eu", ""}).Draw(t, "region")
	}
	return p
}

func genRoute(t *rapid.T) gatewayv1.HTTPRoute {
	route := gatewayv1.HTTPRoute{ObjectMeta: genMeta(t)}
	for range rapid.IntRange(1, 3).Draw(t, "parents") {
		ref := gatewayv1.ParentReference{Name: gatewayv1.ObjectName(genName.Draw(t, "parent")), Namespace: new(gatewayv1.Namespace(genNamespace.Draw(t, "in")))}
		if rarely(t) {
			ref.SectionName = new(gatewayv1.SectionName("l0"))
		}
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, ref)
	}
	if rapid.Bool().Draw(t, "accepted") {
		route.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: v1alpha1.GatewayController, Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", ObservedGeneration: int64(rapid.IntRange(1, 3).Draw(t, "observed"))}}}}
	}
	for range rapid.IntRange(0, 2).Draw(t, "hostnames") {
		route.Spec.Hostnames = append(route.Spec.Hostnames, gatewayv1.Hostname(genHostname.Draw(t, "hostname")))
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		route.Spec.Rules = append(route.Spec.Rules, genRule(t))
	}
	return route
}

// revised is the next version of a route: another object.
func revised(route *Route, revise func(*gatewayv1.HTTPRoute)) *Route {
	next := objectOf(route).DeepCopy()
	next.Generation++
	revise(next)
	return FromHTTPRoute(next)
}

// objectOf is the HTTPRoute that a Route was made of.
func objectOf(route *Route) *gatewayv1.HTTPRoute { return route.source.(httpRoute).HTTPRoute }

func adapted(objects []gatewayv1.HTTPRoute) []*Route {
	routes := make([]*Route, len(objects))
	for i := range objects {
		routes[i] = FromHTTPRoute(&objects[i])
	}
	return routes
}

func genRule(t *rapid.T) gatewayv1.HTTPRouteRule {
	rule := gatewayv1.HTTPRouteRule{}
	for range rapid.IntRange(0, 3).Draw(t, "matches") {
		rule.Matches = append(rule.Matches, genMatch(t))
	}
	for range rapid.IntRange(0, 1).Draw(t, "filters") {
		rule.Filters = append(rule.Filters, genFilter(t))
	}
	for range rapid.IntRange(0, 3).Draw(t, "backends") {
		backend := gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: genBackend(t), Weight: maybe(genWeight).Draw(t, "weight")}}
		if rapid.IntRange(0, 5).Draw(t, "own") == 5 {
			backend.Filters = append(backend.Filters, genFilter(t))
		}
		rule.BackendRefs = append(rule.BackendRefs, backend)
	}
	if rapid.IntRange(0, 4).Draw(t, "timeouts") == 4 {
		rule.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: (*gatewayv1.Duration)(maybe(genDuration).Draw(t, "request"))}
	}
	return rule
}

func genMatch(t *rapid.T) gatewayv1.HTTPRouteMatch {
	match := gatewayv1.HTTPRouteMatch{}
	if rapid.Bool().Draw(t, "path") {
		kind := genKind.Draw(t, "kind")
		text := genPath
		if kind == gatewayv1.PathMatchRegularExpression {
			text = genRegex
		}
		match.Path = &gatewayv1.HTTPPathMatch{Type: &kind, Value: maybe(text).Draw(t, "value")}
	}
	if rapid.IntRange(0, 3).Draw(t, "header") == 3 {
		match.Headers = []gatewayv1.HTTPHeaderMatch{{Name: gatewayv1.HTTPHeaderName(genToken.Draw(t, "name")), Value: genValue.Draw(t, "value")}}
	}
	if rapid.IntRange(0, 3).Draw(t, "method") == 3 {
		match.Method = new(genMethod.Draw(t, "verb"))
	}
	return match
}

func genFilter(t *rapid.T) gatewayv1.HTTPRouteFilter {
	headers := &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{{Name: gatewayv1.HTTPHeaderName(genToken.Draw(t, "name")), Value: genValue.Draw(t, "value")}}}
	path := &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: new(genPath.Draw(t, "prefix"))}
	if rarely(t) {
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterExtensionRef}
	}
	return rapid.SampledFrom([]gatewayv1.HTTPRouteFilter{
		{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: headers},
		{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier, ResponseHeaderModifier: headers},
		{Type: gatewayv1.HTTPRouteFilterRequestMirror, RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: genBackend(t), Percent: maybe(genPercent).Draw(t, "percent")}},
		{Type: gatewayv1.HTTPRouteFilterRequestRedirect, RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Path: path}},
		{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: &gatewayv1.HTTPURLRewriteFilter{Path: path}},
	}).Draw(t, "filter")
}

func genBackend(t *rapid.T) gatewayv1.BackendObjectReference {
	ref := gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(genName.Draw(t, "backend")), Port: new(genPort.Draw(t, "port"))}
	if rarely(t) {
		ref.Namespace = new(gatewayv1.Namespace(genNamespace.Draw(t, "in")))
	}
	if rapid.IntRange(0, 3).Draw(t, "kind") < 3 {
		ref.Group, ref.Kind = new(gatewayv1.Group(mcsv1beta1.GroupName)), new(gatewayv1.Kind("ServiceImport"))
	}
	return ref
}

func genGrant(t *rapid.T) gatewayv1beta1.ReferenceGrant {
	grant := gatewayv1beta1.ReferenceGrant{ObjectMeta: genMeta(t)}
	for _, kind := range []gatewayv1.Kind{"HTTPRoute", "Gateway"} {
		grant.Spec.From = append(grant.Spec.From, gatewayv1.ReferenceGrantFrom{Group: gatewayv1.GroupName, Kind: kind, Namespace: gatewayv1.Namespace(genNamespace.Draw(t, "from"))})
	}
	grant.Spec.To = []gatewayv1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport", Name: (*gatewayv1.ObjectName)(maybe(genName).Draw(t, "to"))}, {Kind: "Secret"}}
	return grant
}

func genSecret(tb testing.TB, t *rapid.T) corev1.Secret {
	kind := genSecrets.Draw(t, "kind")
	return corev1.Secret{ObjectMeta: withVersion(genMeta(t), kind), Data: certificate(tb, kind)}
}

func withVersion(meta metav1.ObjectMeta, version string) metav1.ObjectMeta {
	meta.ResourceVersion = version
	return meta
}

func genImport(t *rapid.T) v1alpha1.FleetService {
	meta := genMeta(t)
	imported := v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: meta.Name + "." + meta.Namespace}}
	imported.Spec.Service = v1alpha1.ServiceReference{Namespace: meta.Namespace, Name: meta.Name}
	imported.Spec.Ports = []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Port: 80}}}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		port := v1alpha1.FleetServicePort{Clusters: rapid.SampledFrom([][]string{nil, {"west", "east"}}).Draw(t, "clusters")}
		port.Port = genPort.Draw(t, "port")
		port.AppProtocol = maybe(mostly([]string{"http", "kubernetes.io/h2c"}, []string{"https"})).Draw(t, "protocol")
		imported.Spec.Ports = append(imported.Spec.Ports, port)
	}
	return imported
}

func genService(t *rapid.T) corev1.Service {
	service := corev1.Service{ObjectMeta: genMeta(t)}
	service.Spec.Ports = []corev1.ServicePort{{Port: genPort.Draw(t, "port")}}
	if rarely(t) {
		service.Spec.Type = corev1.ServiceTypeExternalName
	}
	return service
}

func genPolicy(t *rapid.T) v1alpha1.BackendPolicy {
	policy := v1alpha1.BackendPolicy{ObjectMeta: genMeta(t)}
	policy.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReference{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport", Name: gatewayv1.ObjectName(genName.Draw(t, "target"))}}
	if rapid.Bool().Draw(t, "check") {
		policy.Spec.HealthCheck = &v1alpha1.HealthCheck{Interval: gatewayv1.Duration(genDuration.Draw(t, "interval"))}
	}
	return policy
}

func genPool(t *rapid.T) v1alpha1.EdgePool {
	pool := v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: genName.Draw(t, "name")}}
	pool.Spec.Region = "us"
	pool.Spec.Addresses = []v1alpha1.AddressBlock{{CIDR: rapid.SampledFrom([]string{"198.18.1.0/30", "198.18.2.0/24", "2001:db8::/126", "junk"}).Draw(t, "cidr")}}
	return pool
}

// epoch is the creation time of the benchmark's first object.
var epoch = time.Unix(1_750_000_000, 0)
