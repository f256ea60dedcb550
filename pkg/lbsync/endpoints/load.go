package endpoints

import (
	"math"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
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
	outcomes          map[fleet.ClusterName]*outcome
}

// outcome is an Outcome in the making.
type outcome struct {
	lbsync.Outcome
	issued, open uint64
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
	for f, t := range tallies {
		changed := f.hear(h, t)
		if len(changed) > 0 {
			f.moved, f.due = time.Time{}, true // a failing member moves at once
		}
		health := &f.region(h.edge.Region).health
		for _, cluster := range changed {
			w.log.Info("a member's failures changed its share", "import", f.backend.Name, "region", h.edge.Region, "cluster", cluster,
				"heldOut", slices.Contains(health.HeldOut(), cluster), "unreachable", slices.Contains(health.Unreachable(), cluster))
		}
	}
}

// tally counts the requests of one assignment as demand. Those that the hub moved from backends that are down are the
// others' demand, too: it lasts, and they may overflow.
func (w *world) tally(tallies map[*flow]*tally, a *assigned, region string, load *Load) {
	total, up, down := float64(load.Dropped), 0.0, 0.0
	for _, l := range load.Localities {
		total += float64(l.Issued)
	}
	for _, b := range a.Backends {
		if w.down(b.Backend, region) {
			down += float64(b.Weight)
		} else {
			up += float64(b.Weight)
		}
	}
	each := total / (up + down)
	toUp, _, toFallback := 1.0, 1.0, 0.0
	if down > 0 {
		fallback := 0.0
		for _, b := range a.Fallback {
			if !w.down(b.Backend, region) {
				fallback += float64(b.Weight)
			}
		}
		toUp, _, toFallback = lbsync.Takeover(up, down, fallback)
	}
	count := func(backends []model.WeightedBackend, factor float64) {
		for _, b := range backends {
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
			if w.down(b.Backend, region) {
				t.issued += each * float64(b.Weight)
			} else {
				t.issued += each * float64(b.Weight) * factor
			}
		}
	}
	count(a.Backends, toUp)
	if toFallback > 0 {
		count(a.Fallback, toFallback)
	}
}

// down says whether an import is down in a region.
func (w *world) down(backend fleet.Backend, region string) bool {
	f := w.flows[backend]
	return f != nil && f.sharesOf(region).Down
}

func (t *tally) add(cluster fleet.ClusterName, l LocalityLoad) {
	t.succeeded += l.Succeeded
	t.failed += l.Failed
	if t.outcomes == nil {
		t.outcomes = map[fleet.ClusterName]*outcome{}
	}
	o := t.outcomes[cluster]
	if o == nil {
		o = &outcome{}
		t.outcomes[cluster] = o
	}
	o.Succeeded += l.Succeeded
	o.Failed += l.Failed
	o.issued += l.Issued
	o.open += l.Open
}

// hear takes in one edge's tally, and gives the members of which it changed what is known. The shares are due when somebody began or ceased to fail, or when what clients send is
// not what it was. An import without a rate that nobody asks for costs nothing.
func (f *flow) hear(h heard, t *tally) (changed []fleet.ClusterName) {
	r := f.region(h.edge.Region)
	changed = r.health.Expire(h.at)
	if t.issued == 0 && t.succeeded+t.failed == 0 && f.policy.Rate == 0 && r.demand.Rate() == 0 && !r.waits() {
		return changed
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
	was := r.open[key]
	delete(r.open, key)
	for cluster, o := range t.outcomes {
		if o.open > 0 && r.open[key] == nil {
			r.open[key] = map[fleet.ClusterName]uint64{}
		}
		if o.open > 0 {
			r.open[key][cluster] = o.open
		}
		o.Edge, o.Cluster, o.At = key, cluster, h.at
		o.Ended = max(was[cluster]+o.issued, o.open) - o.open
		if r.health.Observe(o.Outcome) {
			changed = append(changed, cluster)
		}
	}
	f.due = f.due || r.demand.Rate() != before || r.waits()
	return changed
}

// waits says whether the shares were learned and not all edges have reported since.
func (r *regionFlow) waits() bool { return !r.learned.IsZero() && !r.counted }
