package gateway

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A route has never more clusters than it is charged for, whatever policies, imports and grants there are, and these do
// not change what it is charged.
func TestCostDependsOnTheRouteAlone(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Draw(t, "in")
		costs := func(in Input) map[string]cost {
			in.Memo = nil
			all := map[string]cost{}
			for _, r := range Build(in).Memo.results {
				if r.plan == nil {
					continue
				}
				must(t, len(r.assignments) <= r.plan.clusters.clusters, "%s has %d clusters and is charged %d", r.ref, len(r.assignments), r.plan.clusters.clusters)
				all[fmt.Sprint(r.ref)] = r.plan.clusters.plus(r.plan.each.times(len(r.places)))
			}
			return all
		}
		before := costs(in)
		in.Policies, in.Imports, in.Services, in.Grants = nil, nil, nil, nil
		must(t, fmt.Sprint(before) == fmt.Sprint(costs(in)), "without policies, imports and grants the routes cost otherwise")
	})
}

// A backend without weight makes another cluster of those that have one, and counts as such: or a namespace had as many
// clusters as rules for the price of one.
func TestBackendsWithoutWeightCount(t *testing.T) {
	in := bigInput(9)
	o := objectOf(in.Routes[0])
	for i := range 8 {
		rule := *o.Spec.Rules[0].DeepCopy()
		rule.Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: new(fmt.Sprint("/", i))}}}
		idle := rule.BackendRefs[0]
		idle.Name, idle.Weight = gatewayv1.ObjectName(fmt.Sprint("app-", i+1)), new(int32(0))
		rule.BackendRefs = append(rule.BackendRefs, idle)
		o.Spec.Rules = append(o.Spec.Rules, rule)
	}
	r := Build(in).Memo.results[0]
	if len(r.assignments) != 9 || r.plan.clusters.clusters != 9 {
		t.Errorf("%d clusters, and %d are charged", len(r.assignments), r.plan.clusters.clusters)
	}
}
