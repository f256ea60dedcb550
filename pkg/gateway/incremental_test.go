package gateway

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Along a chain of changes of single routes, each patch of the last Result is the
// same as a full Build.
func TestPatchIsBuild(tb *testing.T) {
	defer func(n int) { maxChecks = n }(maxChecks)
	maxChecks = 1
	inputs := genInput(tb)
	patches, rules, assignments := 0, 0, 0 // of the patches, how many have other rules, and other assignments
	rapid.Check(tb, func(t *rapid.T) {
		in := bigInput(6) // every route has its own host
		for i, route := range in.Routes {
			rule, next := &objectOf(route).Spec.Rules[0], &objectOf(in.Routes[(i+1)%len(in.Routes)]).Spec.Rules[0]
			rule.BackendRefs = append(rule.BackendRefs, next.BackendRefs[0])
		}
		if rapid.Bool().Draw(t, "wide") { // the first is wider than the others
			objectOf(in.Routes[0]).Spec.Hostnames = nil
			for _, route := range in.Routes[1:] {
				objectOf(route).Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: new("/narrow")}}}
			}
		}
		if rapid.Bool().Draw(t, "chaos") {
			in = inputs.Draw(t, "in")
		} else if rapid.IntRange(0, 2).Draw(t, "tight") == 2 {
			tighten(t, &in)
		}
		in.Memo = nil
		last := Build(in)
		history := [][]*Route{in.Routes}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			before := Build(in)
			must(t, same(before, last), "a patch is not what a Build is")
			in.Memo = last.Memo
			if in.Routes = slices.Clone(in.Routes); rapid.IntRange(0, 7).Draw(t, "back") == 7 {
				in.Routes = rapid.SampledFrom(history).Draw(t, "to")
			} else {
				revise(t, in.Routes)
			}
			next := Build(in)
			if reflect.ValueOf(next.Memo.parents).Pointer() == reflect.ValueOf(last.Memo.parents).Pointer() {
				patches++
				if !reflect.DeepEqual(last.Model.Listeners, next.Model.Listeners) {
					rules++
				}
				if !reflect.DeepEqual(last.Model.Assignments, next.Model.Assignments) {
					assignments++
				}
			}
			must(t, same(before, last), "a patch changed what it began from")
			now := in.Routes
			in.Routes = history[len(history)-1][1:] // no patch
			other := Build(in)
			in.Memo = nil
			must(t, same(Build(in), other), "a patch changed the Memo that it began from")
			history = append(history, now)
			last, in.Routes = next, now
		}
		must(t, same(Build(in), last), "a patch is not what a Build is")
	})
	tb.Logf("%d patches, %d with other rules, %d with other assignments", patches, rules, assignments)
	if !testing.Short() && (patches < 100 || rules < 20 || assignments < 3) {
		tb.Errorf("only %d patches, %d with other rules and %d with other assignments: this tests nothing", patches, rules, assignments)
	}
}

func same(a, b Result) bool {
	return reflect.DeepEqual(outcomeOf(a), outcomeOf(b))
}

// A route that narrower hostnames have no room for still says so when it, or a route of theirs, changes.
func TestPatchKeepsNarrowHostname(t *testing.T) {
	f := newFixture(t)
	f.add(baseObjects + `---
kind: GatewayClass
metadata: {name: crossway}
spec:
  controllerName: crossway.dev/gateway
  parametersRef: {group: crossway.dev, kind: GatewayParameters, namespace: infra, name: small}
---
kind: GatewayParameters
metadata: {name: small, namespace: infra}
spec: {budgets: {namespace: {routes: 2}}}
---
kind: HTTPRoute
metadata: {name: narrow, namespace: shop}
spec:
  parentRefs: [{name: shared, namespace: infra}]
  hostnames: [www.example.org]
  rules: [{matches: [{path: {value: /one}}], backendRefs: [{name: store, port: 80}]}]
---
kind: HTTPRoute
metadata: {name: wide, namespace: shop}
spec:
  parentRefs: [{name: shared, namespace: infra}]
  hostnames: ["*.example.org"]
  rules: [{matches: [{path: {value: /api}}], backendRefs: [{name: store, port: 80}]}]
`)
	for changed := range f.in.Routes {
		in := f.in
		in.Memo = Build(in).Memo
		in.Routes = slices.Clone(in.Routes)
		in.Routes[changed] = revised(in.Routes[changed], func(r *gatewayv1.HTTPRoute) { r.Spec.Rules[0].Matches[0].Path.Value = new("/two") })
		next := Build(in)
		in.Memo = nil
		if whole := Build(in); !same(whole, next) || !strings.Contains(describeReports(Report(whole, nil), "HTTPRoute", "shop/wide"), "NarrowHostname") {
			t.Errorf("a patch:\n%s\na Build:\n%s", describeReports(Report(next, nil), "HTTPRoute", ""), describeReports(Report(whole, nil), "HTTPRoute", ""))
		}
	}
}

// A change of any input that is not a route's own leads to a full Build.
func TestOtherChangesAreNotPatched(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an address": func(in *Input) {
			pool := *in.Pools[0].DeepCopy()
			pool.Status.Allocations[0].Address = "198.18.0.77"
			in.Pools = []v1alpha1.EdgePool{pool}
		},
		"the CRDs":          func(in *Input) { in.CRDVersion = "v1.0.0" },
		"a route that went": func(in *Input) { in.Routes = in.Routes[:len(in.Routes)-1] },
		"a route that came": func(in *Input) {
			in.Routes = append(slices.Clip(in.Routes), revised(in.Routes[0], func(r *gatewayv1.HTTPRoute) { r.Name = "new" }))
		},
	} {
		in := bigInput(3)
		in.Pools = []v1alpha1.EdgePool{{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}, Status: v1alpha1.EdgePoolStatus{
			Allocations: []v1alpha1.AddressAllocation{{Gateway: v1alpha1.GatewayReference{Namespace: "infra", Name: "shared"}, Address: "198.18.0.7"}}}}}
		in.CRDVersion = "v1.6.0"
		last := Build(in)
		change(&in)
		whole := Build(in)
		if same(whole, last) {
			t.Errorf("%s changes nothing: this tests nothing", name)
		}
		in.Memo = last.Memo
		if !same(whole, Build(in)) {
			t.Errorf("%s: the change is ignored", name)
		}
	}
}

// revise changes one route: in most cases its matches, weights or filters, in some
// its hosts, parents or name.
func revise(t *rapid.T, routes []*Route) {
	i := rapid.IntRange(0, len(routes)-1).Draw(t, "which")
	routes[i] = revised(routes[i], func(r *gatewayv1.HTTPRoute) {
		other := genRoute(t)
		switch what := rapid.IntRange(0, 15).Draw(t, "what"); {
		case what == 0:
			r.Spec = other.Spec
		case what == 1:
			r.Spec.Hostnames = other.Spec.Hostnames
		case what == 2:
			r.Spec.ParentRefs = other.Spec.ParentRefs
		case what == 3:
			r.Spec.Rules = other.Spec.Rules
		case what == 4:
			r.Name += "x"
		case what == 5:
			r.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: v1alpha1.GatewayController}}
		case what == 6:
			r.Status.Parents = nil
		case what == 7:
			r.Spec.Rules = nil
		case len(r.Spec.Rules) == 0:
			r.Spec.Rules = other.Spec.Rules
		case what < 10:
			r.Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{genMatch(t), genMatch(t)}
		case what < 13 && len(r.Spec.Rules[0].BackendRefs) > 0:
			r.Spec.Rules[0].BackendRefs[0].Weight = new(rapid.Int32Range(0, 9).Draw(t, "weight"))
		default:
			r.Spec.Rules[0].Filters = []gatewayv1.HTTPRouteFilter{genFilter(t)}
		}
	})
}
