package endpoints

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// overflowRest is how long an import must have had room before it counts as no longer overflowing: a condition is
	// for states, live numbers are metrics.
	overflowRest = 30 * time.Second
	// retiredFor is how long it is said of a policy in force no more: until it is surely written.
	retiredFor = time.Minute
	// overflowLook is how often it is looked at.
	overflowLook = time.Second
)

// overflow remembers whether an import sends requests beyond its regions' nearest members.
type overflow struct {
	known   bool     // divided at least once with demand that is not only learned
	regions []string // that overflow now, sorted
	ended   time.Time
}

func (o *overflow) note(m traffic.Move, now time.Time) {
	var regions []string
	for _, s := range m.New {
		if s.Overflow > 0 && m.Demand[s.Region] > 0 {
			regions = append(regions, s.Region)
		}
	}
	if len(o.regions) > 0 && len(regions) == 0 {
		o.ended = now
	}
	o.known, o.regions = true, regions
}

func (o *overflow) lasts(now time.Time) bool {
	return len(o.regions) > 0 || !o.ended.IsZero() && now.Sub(o.ended) < overflowRest
}

// reportOverflow gives the Reporter a verdict on every policy whose imports are all known. l.mu is held.
func (l *Loop) reportOverflow(now time.Time) {
	if l.config.Reporter == nil || !l.served || now.Sub(l.said) < overflowLook {
		return
	}
	l.said = now
	l.config.Reporter.Report(l.world.overflowReports(now))
}

// overflowReports judges the imports of all policies with a rate; one that nobody uses has room. A policy without, or
// that is in force no more, is reported without any verdict, which takes back what was said of it.
func (w *world) overflowReports(now time.Time) []condition.Report {
	reports := map[condition.Ref]*condition.Report{}
	unknown := map[condition.Ref]bool{}
	for _, p := range w.policies {
		f := w.flows[p.Backend]
		ref := condition.Ref{Kind: condition.BackendPolicy, Name: p.Policy, Generation: p.Generation}
		if reports[ref] == nil {
			reports[ref] = &condition.Report{Ref: ref}
		}
		if p.Rate == 0 {
			continue
		}
		if f != nil && !f.overflow.known {
			unknown[ref] = true
			continue
		}
		verdict := condition.HasRoom()
		if f != nil && f.overflow.lasts(now) {
			verdict = condition.Overflowing(p.Backend.Name)
		}
		reports[ref].Ancestors = append(reports[ref].Ancestors, condition.AncestorReport{
			Group: "multicluster.x-k8s.io", Kind: string(fleet.Import), Name: p.Backend.Name, Conditions: []condition.Condition{verdict}})
	}
	for name, r := range w.retired {
		if r.since.IsZero() {
			r.since = now
			w.retired[name] = r
		}
		if now.Sub(r.since) > retiredFor {
			delete(w.retired, name)
			continue
		}
		ref := condition.Ref{Kind: condition.BackendPolicy, Name: name, Generation: r.generation}
		reports[ref] = &condition.Report{Ref: ref}
	}
	var out []condition.Report
	for ref, r := range reports {
		if !unknown[ref] {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b condition.Report) int { return a.Ref.Name.Compare(b.Ref.Name) })
	return out
}
