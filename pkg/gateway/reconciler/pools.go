package reconciler

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// poolReports are the reports on all EdgePools. own is what the edges of this replica
// answered; those of the others count, too.
func (r *Reconciler) poolReports(own rollout.Answers) []condition.Report {
	pools := func(yield func(*v1alpha1.EdgePool) bool) {
		for i := range r.input.Pools {
			if !yield(&r.input.Pools[i]) {
				return
			}
		}
	}
	allocated := map[string][]v1alpha1.AddressAllocation{} // where they changed
	for _, p := range gateway.Allocate(r.input) {
		allocated[p.Name] = p.Status.Allocations
	}
	var reports []condition.Report
	for p := range pools {
		r.metrics.refusing.WithLabelValues(p.Name).Set(float64(refusing(own[p.Name])))
		edges := r.rollout.PoolEdges(p.Name, own)
		status := &condition.PoolReport{Edges: int32(edges.Connected), Given: p.Status.Allocations, Allocations: p.Status.Allocations}
		if changed, ok := allocated[p.Name]; ok {
			status.Allocations = changed
		}
		ready := r.poolReady(p, edges)
		if decides := v1alpha1.NearestOf(pools, p.Spec.Region); len(p.Spec.Nearest) > 0 && !slices.Equal(p.Spec.Nearest, decides.Spec.Nearest) {
			ready = condition.EdgePoolNearestIgnored(ready, p.Spec.Region, decides.Name)
		}
		conditions := []condition.Condition{ready}
		if len(edges.Refusing) > 0 {
			conditions = append(conditions, condition.EdgePoolConfigurationRefused(edgeRefusals(edges.Refusing)))
		} else if status.Edges > 0 {
			conditions = append(conditions, condition.EdgePoolConfigurationAccepted())
		}
		if r.reconnecting() && status.Edges < p.Status.Edges { // the edges of before have a moment to find this process
			status.Edges, conditions = p.Status.Edges, storedConditions(p)
		}
		ref := condition.Ref{Kind: condition.EdgePool, Name: nameOf(p), Generation: p.Generation}
		reports = append(reports, condition.Report{Ref: ref, Conditions: conditions, Pool: status})
	}
	return reports
}

// poolReady says whether a pool has edges, and which of them are only remembered.
func (r *Reconciler) poolReady(p *v1alpha1.EdgePool, edges rollout.PoolEdges) condition.Condition {
	var counting, forgotten []condition.SilentReplica
	for _, s := range r.silent {
		said := condition.SilentReplica{Name: s.Name, Since: s.Since}
		switch {
		case s.Counts:
			counting = append(counting, said)
		case r.options.Clock.Since(s.Since) >= silentHold: // sooner it may just start
			forgotten = append(forgotten, said)
		}
	}
	switch {
	case edges.Connected == 0:
		return condition.EdgePoolNoEdges(p.Name, forgotten...)
	case edges.Remembered > 0 && len(counting) > 0:
		return condition.EdgePoolRemembered(edges.Remembered, counting, silentHold)
	default:
		return condition.EdgePoolReady(forgotten...)
	}
}

// storedConditions are what the status of a pool says of its edges.
func storedConditions(p *v1alpha1.EdgePool) []condition.Condition {
	var all []condition.Condition
	for _, name := range []string{condition.EdgePoolReadyType, condition.EdgePoolConfigurationType} {
		if c := meta.FindStatusCondition(p.Status.Conditions, name); c != nil {
			all = append(all, condition.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	return all
}

// refusing is how many connected edges of this replica refuse something.
func refusing(own rollout.PoolAnswers) (n int) {
	for _, e := range own.Edges {
		if e.Left.IsZero() && len(e.Routes)+len(e.Resources) > 0 {
			n++
		}
	}
	return n
}
