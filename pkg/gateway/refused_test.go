package gateway

import (
	"slices"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/model"
)

// instead is a Build with an earlier version in the place of a route.
func instead(in Input, at int, earlier *Route, memo *Memo) Result {
	in.Routes = slices.Clone(in.Routes)
	in.Routes[at], in.Memo = InsteadOf(in.Routes[at], earlier), memo
	return Build(in)
}

// An earlier version of a route has the rules that it had, in the present world,
// and shares an assignment with the present version only if both are equal.
func TestEarlierVersion(t *testing.T) {
	in := bigInput(20)
	backend := func(name string, weight int32) gatewayv1.HTTPBackendRef {
		ref := *objectOf(in.Routes[0]).Spec.Rules[0].BackendRefs[0].DeepCopy()
		ref.Name, ref.Weight = gatewayv1.ObjectName(name), &weight
		return ref
	}
	earlier := revised(in.Routes[7], func(r *gatewayv1.HTTPRoute) {
		r.Spec.Rules[0].BackendRefs = []gatewayv1.HTTPBackendRef{backend("app-1", 9), backend("app-2", 1)}
	})
	keys := func(r Result) (keys []string) {
		for _, a := range r.Model.Assignments {
			if a.Route == earlier.Ref {
				keys = append(keys, a.Key)
			}
		}
		return keys
	}
	assignments := func(r Result) []model.Assignment { return r.Model.Assignments }
	for _, test := range []struct {
		name    string
		present func(*gatewayv1.HTTPRoute)
		shared  bool
	}{
		{"another match", func(r *gatewayv1.HTTPRoute) {
			r.Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: new(gatewayv1.PathMatchRegularExpression), Value: new("/x+")}}}
		}, true},
		{"other weights", func(r *gatewayv1.HTTPRoute) { r.Spec.Rules[0].BackendRefs[1].Weight = new(int32(5)) }, false},
		{"another timeout", func(r *gatewayv1.HTTPRoute) {
			r.Spec.Rules[0].Timeouts = &gatewayv1.HTTPRouteTimeouts{BackendRequest: new(gatewayv1.Duration("1s"))}
		}, false},
	} {
		in.Routes[7] = revised(earlier, test.present)
		base := Build(in)
		view := instead(in, 7, earlier, base.Memo)
		if whole := instead(in, 7, earlier, nil); !same(view, whole) {
			t.Errorf("%s: with the Memo\n%s\nwithout\n%s", test.name, describeModel(view.Model), describeModel(whole.Model))
		}
		if got := keys(view); len(got) != 1 || slices.Equal(got, keys(base)) != test.shared || !test.shared && !strings.HasSuffix(got[0], "-g2") {
			t.Errorf("%s: the earlier version has %v, the present one %v", test.name, got, keys(base))
		}
		for _, a := range assignments(view) {
			if at := slices.IndexFunc(assignments(base), func(o model.Assignment) bool { return o.Key == a.Key }); at >= 0 && !a.Equal(assignments(base)[at]) {
				t.Errorf("%s: two assignments %s", test.name, a.Key)
			}
		}
		// The present world: a backend is gone.
		gone := in
		gone.Imports = slices.DeleteFunc(slices.Clone(in.Imports), func(i v1alpha1.FleetService) bool { return i.Spec.Service.Name == "app-1" })
		gone.Memo = base.Memo
		if left := instead(gone, 7, earlier, nil); !strings.Contains(describeReports(Report(left, nil), "HTTPRoute", "shop/app-7"), "BackendNotFound") {
			t.Errorf("%s: a backend that is gone is served", test.name)
		}
	}
}
