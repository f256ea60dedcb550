package endpoints

import (
	"math"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
)

// Load is what one edge counted for one assignment in an interval.
type Load struct {
	Assignment string
	Interval   time.Duration
	// Dropped were answered 503 without an endpoint being asked: backends without one keep their weight.
	Dropped    uint64
	Localities []LocalityLoad
}

// LocalityLoad is one locality's part of a Load; see lbsync.Sample for what Envoy counts where.
type LocalityLoad struct {
	SubZone                   string
	Issued, Succeeded, Failed uint64
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
	outcomes          map[fleet.ClusterName]*lbsync.Outcome
}

// hear takes in one report. What clients sent for an assignment counts for its backends by weight, not by who answered:
// requests that health moved to another backend, or to the fallback, are still this one's demand. An edge that has not said yet what it holds
// is not heard: load reports have a stream of their own, and after a restart of the hub the first of them must not move
// the shares before they are learned.
func (w *world) hear(h heard) {
	if e := w.edges[h.edge.key()]; e == nil || !e.held {
		return
	}
	tallies := map[*flow]*tally{}
	for i := range h.loads {
		w.tally(tallies, &h.loads[i])
	}
	for f, t := range tallies {
		f.hear(h, t)
	}
}

func (w *world) tally(tallies map[*flow]*tally, load *Load) {
	a := w.assignments[load.Assignment]
	if a == nil {
		return
	}
	total, weights := float64(load.Dropped), 0.0
	for _, l := range load.Localities {
		total += float64(l.Issued)
	}
	for _, b := range a.Backends {
		weights += float64(b.Weight)
	}
	for _, b := range a.Backends {
		f := w.flows[b.Backend]
		if f == nil || b.Backend.Kind != fleet.Import || b.Weight == 0 {
			continue
		}
		t := tallies[f]
		if t == nil {
			t = &tally{}
			tallies[f] = t
		}
		t.interval = load.Interval
		t.issued += total * float64(b.Weight) / weights
	}
	for _, l := range load.Localities {
		cluster, backend, ok := lbsync.ParseSubZone(l.SubZone)
		if f := w.flows[backend]; ok && tallies[f] != nil && f.has(cluster) {
			tallies[f].add(cluster, l)
		}
	}
}

func (t *tally) add(cluster fleet.ClusterName, l LocalityLoad) {
	t.succeeded += l.Succeeded
	t.failed += l.Failed
	if t.outcomes == nil {
		t.outcomes = map[fleet.ClusterName]*lbsync.Outcome{}
	}
	o := t.outcomes[cluster]
	if o == nil {
		o = &lbsync.Outcome{Cluster: cluster}
		t.outcomes[cluster] = o
	}
	o.Succeeded += l.Succeeded
	o.Failed += l.Failed
	o.Issued += l.Issued
}

// hear takes in one edge's tally. The shares are due when somebody began or ceased to fail, or when what clients send is
// not what it was. An import without a rate that nobody asks for costs nothing.
func (f *flow) hear(h heard, t *tally) {
	r := f.region(h.edge.Region)
	if t.issued == 0 && t.succeeded+t.failed == 0 && f.policy.Rate == 0 && r.demand.Rate() == 0 && !r.waits() {
		return
	}
	if r.learned.IsZero() {
		r.heard = true
	}
	key := h.edge.key()
	exact := t.issued + r.carry[key]
	issued := math.Floor(exact + 1e-9)
	r.carry[key] = exact - issued
	before := r.demand.Rate()
	unserved := true
	for _, m := range f.members {
		unserved = unserved && m.Ready == 0
	}
	r.demand.Observe(lbsync.Sample{Edge: key, End: h.at, Interval: t.interval, Issued: uint64(issued),
		Succeeded: t.succeeded, Failed: t.failed, Unserved: unserved})
	if issued > 0 {
		for _, silent := range r.health.Suspects(key) {
			t.add(silent, LocalityLoad{})
		}
	}
	for _, o := range t.outcomes {
		o.Edge = key
		if r.health.Observe(*o) {
			f.moved, f.due = time.Time{}, true // a failing member moves at once
		}
	}
	f.due = f.due || r.demand.Rate() != before || r.waits()
}

// waits says whether the shares were learned and not all edges have reported since.
func (r *regionFlow) waits() bool { return !r.learned.IsZero() && !r.counted }
