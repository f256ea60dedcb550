package gateway

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
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
