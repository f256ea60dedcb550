package endpoints

import (
	"math"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Load is what one edge counted for one assignment in an interval.
type Load struct {
	Assignment string
	Interval   time.Duration
	// Dropped were answered 503 without an endpoint being asked: backends without one keep their weight.
	Dropped    uint64
	Localities []LocalityLoad
}

// LocalityLoad is one locality's part of a Load; see traffic.Sample for what Envoy counts where.
type LocalityLoad struct {
	SubZone                   string
	Issued, Succeeded, Failed uint64
	Open                      uint64 // issued and not ended, at the end of the interval
}

// heard is one report of one edge.
type heard struct {
	edge  Edge
	at    time.Time
	loads []Load
}

// tally is what one report says of one import.
type tally struct {
	interval          time.Duration
	issued            float64
	succeeded, failed uint64
	outcomes          map[fleet.ClusterName]*memberLoad
}

// outcome is an Outcome in the making.
type memberLoad struct {
	traffic.MemberSample
	issued uint64
}

// hear takes in one report. What clients sent for an assignment counts for its backends by weight, not by who answered:
// requests that health moved to another backend are still this one's demand. An edge that has not said yet what it holds
// is not heard: load reports have a stream of their own, and after a restart of the hub the first of them must not move
// the shares before they are learned.
func (w *world) hear(h heard) {
	if e := w.edges[h.edge.key()]; e == nil || !e.held {
		return
	}
	tallies := map[*flow]*tally{}
	for i := range h.loads {
		if a := w.assignments[h.loads[i].Assignment]; a != nil {
			w.tally(tallies, a, h.edge.Region, &h.loads[i])
		}
	}
	for i := range h.loads { // only now: who answers for an assignment may have its demand from another one
		for _, l := range h.loads[i].Localities {
			cluster, backend, ok := lbsync.ParseSubZone(l.SubZone)
			if f := w.flows[backend]; ok && tallies[f] != nil && f.has(cluster) {
				tallies[f].add(cluster, l)
			}
		}
	}
	changes := map[change]int{}
	for f, t := range tallies {
		f.hear(h, t, changes)
	}
	w.tell(h.edge.Region, changes)
}

// change is a change of what is known of a member's part of an import.
type change struct {
	cluster       fleet.ClusterName
	heldOut, dead bool
}

// tell logs what changed, with the number of imports rather than a line for each.
func (w *world) tell(region string, all map[change]int) {
	for n, imports := range all {
		w.log.Info("requests to a member fail, or do no more", "region", region, "cluster", n.cluster,
			"heldOut", n.heldOut, "dead", n.dead, "imports", imports)
	}
}

// tally counts the requests of one assignment as demand. As long as nobody is dead, that is by weight: Demanded would say
// the same, and read all endpoints for it, each second.
func (w *world) tally(tallies map[*flow]*tally, a *assigned, region string, load *Load) {
	total, weights, dead := float64(load.Dropped), 0.0, false
	for _, l := range load.Localities {
		total += float64(l.Issued)
	}
	for _, b := range a.Backends {
		weights += float64(b.Weight)
		f := w.flows[b.Backend]
		dead = dead || f != nil && len(f.sharesOf(region).Dead) > 0
	}
	if dead && total > 0 {
		for backend, part := range lbsync.DemandFractions(w.input(a, region)) {
			w.count(tallies, backend, load.Interval, total*part)
		}
		return
	}
	for _, b := range a.Backends {
		if b.Weight > 0 {
			w.count(tallies, b.Backend, load.Interval, total*float64(b.Weight)/weights)
		}
	}
}

func (w *world) count(tallies map[*flow]*tally, backend fleet.Backend, interval time.Duration, issued float64) {
	f := w.flows[backend]
	if f == nil || backend.Kind != fleet.Import {
		return
	}
	if tallies[f] == nil {
		tallies[f] = &tally{}
	}
	tallies[f].interval = interval
	tallies[f].issued += issued
}

func (t *tally) add(cluster fleet.ClusterName, l LocalityLoad) {
	t.succeeded += l.Succeeded
	t.failed += l.Failed
	if t.outcomes == nil {
		t.outcomes = map[fleet.ClusterName]*memberLoad{}
	}
	o := t.outcomes[cluster]
	if o == nil {
		o = &memberLoad{}
		t.outcomes[cluster] = o
	}
	o.Succeeded += l.Succeeded
	o.Failed += l.Failed
	o.issued += l.Issued
	o.Open += l.Open
}

// hear takes in one edge's tally, and notes what it changed of what is known of members. The shares are due when somebody
// began or ceased to fail, or when what clients send is not what it was. An import without a rate that nobody asks for
// costs nothing.
func (f *flow) hear(h heard, t *tally, changes map[change]int) {
	r := f.region(h.edge.Region)
	key := h.edge.key()
	known := r.reach(key, t)
	f.changed(r, r.health.RetryUntried(h.at, f.sharesOf(h.edge.Region).Down()), changes)
	if t.issued == 0 && t.succeeded+t.failed == 0 && f.policy.Rate == 0 && r.demand.Rate() == 0 && !r.waits() {
		return
	}
	if r.learned.IsZero() {
		r.heard = true
	}
	exact := t.issued + r.carry[key]
	issued := math.Floor(exact + 1e-9)
	r.carry[key] = exact - issued
	before := r.demand.Rate()
	unserved := true
	for _, m := range f.members {
		unserved = unserved && m.Ready == 0
	}
	r.demand.Observe(traffic.Sample{Edge: key, End: h.at, Interval: t.interval, Issued: uint64(issued),
		Succeeded: t.succeeded, Failed: t.failed, Unserved: unserved})
	if issued > 0 {
		for _, silent := range r.health.FailingMembers(key) {
			t.add(silent, LocalityLoad{})
		}
	}
	for cluster, o := range t.outcomes {
		if !known && o.Succeeded == 0 {
			continue // answers or dead connections: the next report tells
		}
		o.Edge, o.Cluster, o.At = key, cluster, h.at
		if r.health.Observe(o.MemberSample) {
			f.changed(r, []fleet.ClusterName{cluster}, changes)
		}
	}
	f.due = f.due || r.demand.Rate() != before || r.waits()
}

// changed notes that something else is known of members now: their shares move at once.
func (f *flow) changed(r *regionFlow, clusters []fleet.ClusterName, all map[change]int) {
	for _, c := range clusters {
		f.moved, f.due = time.Time{}, true
		all[change{c, slices.Contains(r.health.HeldOut(), c), slices.Contains(r.health.Dead(), c)}]++
	}
}

// reach says of an edge's outcomes how many requests got to an endpoint or ended there: all that were open before or were
// issued since, but for those that were only open. Of an edge that reports for the first time that is not known.
func (r *regionFlow) reach(edge string, t *tally) (known bool) {
	before, known := r.open[edge]
	if !known && len(t.outcomes) > 0 {
		before = map[fleet.ClusterName]uint64{}
		r.open[edge] = before
	}
	for cluster := range before {
		if t.outcomes[cluster] == nil {
			delete(before, cluster)
		}
	}
	for cluster, o := range t.outcomes {
		o.Reached = max(before[cluster]+o.issued, o.Open) - min(before[cluster], o.Open)
		before[cluster] = o.Open
	}
	return known
}

// waits says whether the shares were learned and not all edges have reported since.
func (r *regionFlow) waits() bool { return !r.learned.IsZero() && !r.counted }
