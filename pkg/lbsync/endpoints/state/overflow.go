package state

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// overflowEndDelay is how long an import must fit into its nearest members before it counts as no longer overflowing:
	// a condition is for states, live numbers are metrics.
	overflowEndDelay = 30 * time.Second
	// removedPolicyReportTime is how long a policy that is no longer in force is reported without a condition: until that
	// is surely written.
	removedPolicyReportTime = time.Minute
)

// overflow remembers whether an import sends requests beyond its regions' nearest members.
type overflow struct {
	observed bool     // divided at least once with demand that is not only learned
	regions  []string // that overflow now, sorted
	endedAt  time.Time
}

// removedPolicy is a policy that is no longer in force, whose condition is still to be removed.
type removedPolicy struct {
	generation    int64
	reportedSince time.Time // zero: not reported yet
}

func (o *overflow) observe(m traffic.Move, now time.Time) {
	var regions []string
	for _, s := range m.New {
		if s.Overflow > 0 && m.Demand[s.Region] > 0 {
			regions = append(regions, s.Region)
		}
	}
	if len(o.regions) > 0 && len(regions) == 0 {
		o.endedAt = now
	}
	o.observed, o.regions = true, regions
}

// active says whether the import counts as overflowing.
func (o *overflow) active(now time.Time) bool {
	return len(o.regions) > 0 || !o.endedAt.IsZero() && now.Sub(o.endedAt) < overflowEndDelay
}

// OverflowReports has a condition for each import of each policy with a rate, unless an import of the policy has not been
// observed yet. An import that no route uses does not overflow. A policy without a rate, or that is no longer in force, is
// reported without conditions, which removes the old ones.
func (s *State) OverflowReports(now time.Time) []condition.Report {
	reports := map[condition.Ref]*condition.Report{}
	unobserved := map[condition.Ref]bool{}
	for _, p := range s.policies {
		b := s.backends[p.Backend]
		ref := condition.Ref{Kind: condition.BackendPolicy, Name: p.Policy, Generation: p.Generation}
		if reports[ref] == nil {
			reports[ref] = &condition.Report{Ref: ref}
		}
		if p.Rate == 0 {
			continue
		}
		if b != nil && !b.overflow.observed {
			unobserved[ref] = true
			continue
		}
		one := condition.HasRoom()
		if b != nil && b.overflow.active(now) {
			one = condition.Overflowing(p.Backend.Name)
		}
		reports[ref].Parents = append(reports[ref].Parents, condition.ParentReport{
			ParentRef: condition.AncestorRef("multicluster.x-k8s.io", string(fleet.Import), p.Backend.Name), Conditions: []condition.Condition{one}})
	}
	for name, r := range s.removedPolicies {
		if r.reportedSince.IsZero() {
			r.reportedSince = now
		}
		if now.Sub(r.reportedSince) > removedPolicyReportTime {
			delete(s.removedPolicies, name)
			continue
		}
		ref := condition.Ref{Kind: condition.BackendPolicy, Name: name, Generation: r.generation}
		reports[ref] = &condition.Report{Ref: ref}
	}
	var out []condition.Report
	for ref, r := range reports {
		if !unobserved[ref] {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b condition.Report) int { return a.Ref.Name.Compare(b.Ref.Name) })
	return out
}
