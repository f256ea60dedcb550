package state

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Load is what one edge counted for one assignment in an interval.
type Load struct {
	Assignment string        `json:"a"`
	Interval   time.Duration `json:"i"`
	// Dropped were answered 503 without an endpoint: backends without one keep their weight.
	Dropped    uint64         `json:"d,omitempty"`
	Localities []LocalityLoad `json:"l,omitempty"`
}

// LocalityLoad is one locality's part of a Load; traffic.Sample says what Envoy counts where.
type LocalityLoad struct {
	SubZone   string `json:"z"`
	Issued    uint64 `json:"i,omitempty"`
	Succeeded uint64 `json:"s,omitempty"`
	Failed    uint64 `json:"f,omitempty"`
	Open      uint64 `json:"o,omitempty"` // issued and not ended, at the end of the interval
}

// LoadReport is one report of one edge. One whose versions have not been learned is ignored: load reports have a stream of
// their own, and after a restart of the hub the first of them must not move the shares before they are learned.
type LoadReport struct {
	Edge  Edge
	At    time.Time
	Loads []Load
	// Interval is what assignments are counted for that Loads lack: they had no request. 0: nothing is known of them.
	Interval time.Duration
}

// HealthEvent says that a member's part of some imports changed for a region: it is held out, dead, or neither any more.
type HealthEvent struct {
	Region        string
	Cluster       fleet.ClusterName
	HeldOut, Dead bool
	Imports       int // how many imports the event is about
}

// healthEvents counts imports by event; in its keys Imports is 0.
type healthEvents map[HealthEvent]int

// list returns the events, sorted.
func (h healthEvents) list() []HealthEvent {
	out := make([]HealthEvent, 0, len(h))
	for e, imports := range h {
		e.Imports = imports
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b HealthEvent) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Cluster, b.Cluster), compareBools(a.HeldOut, b.HeldOut), compareBools(a.Dead, b.Dead))
	})
	return out
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// importLoad is one report's counts for one import.
type importLoad struct {
	interval          time.Duration // the longest one: a cluster that the edge was just asked for has a shorter one
	issued            float64
	succeeded, failed uint64
	members           map[fleet.ClusterName]*memberLoad
}

// memberLoad is one report's counts for one member's part of an import.
type memberLoad struct {
	traffic.MemberSample
	issued uint64
}

// observeLoad takes one report. What clients sent for an assignment counts for its backends by weight, not by which
// backend answered: requests that health moved to another backend are still this one's demand.
func (s *State) observeLoad(e *edgeState, report LoadReport, health healthEvents) {
	if e.reportedSince.IsZero() {
		e.reportedSince = report.At
	}
	s.forgetNamesakes(e)
	s.noteOpen(e, report.Loads)
	loads := map[*backendState]*importLoad{}
	for i := range report.Loads {
		if a := s.assignments[report.Loads[i].Assignment]; a != nil {
			s.addDemand(loads, a, report.Edge.Region, &report.Loads[i])
		}
	}
	for i := range report.Loads { // after all demand: a backend that answers for an assignment may have its demand from another
		for _, l := range report.Loads[i].Localities {
			cluster, backend, ok := lbsync.ParseSubZone(l.SubZone)
			if b := s.backends[backend]; ok && loads[b] != nil && b.hasMember(cluster) {
				loads[b].add(cluster, l)
			}
		}
	}
	if report.Interval > 0 {
		s.addIdle(loads, report)
	}
	for b, load := range loads {
		b.observeLoad(report, load, health)
	}
}

// addDemand counts the requests of one assignment as demand. While no member is dead that is by weight:
// lbsync.DemandFractions would say the same, and read all endpoints for it, each second.
func (s *State) addDemand(loads map[*backendState]*importLoad, a *model.Assignment, region string, load *Load) {
	total, weights, dead := float64(load.Dropped), 0.0, false
	for _, l := range load.Localities {
		total += float64(l.Issued)
	}
	for _, w := range a.Backends {
		weights += float64(w.Weight)
		b := s.backends[w.Backend]
		dead = dead || b != nil && len(b.sharesOf(region).Dead) > 0
	}
	if dead && total > 0 {
		for backend, fraction := range lbsync.DemandFractions(s.AssignInput(a.Key, region)) {
			s.addIssued(loads, backend, load.Interval, total*fraction)
		}
		return
	}
	for _, w := range a.Backends {
		if w.Weight > 0 {
			s.addIssued(loads, w.Backend, load.Interval, total*float64(w.Weight)/weights)
		}
	}
}

// addIdle counts that an edge had no request for imports that its report lacks. Else nobody could tell clients who went to it
// from clients who left.
func (s *State) addIdle(loads map[*backendState]*importLoad, report LoadReport) {
	for _, b := range s.backends {
		if r := b.regions[report.Edge.Region]; loads[b] == nil && b.policy.Rate > 0 && r != nil && r.demand.Rate() > 0 {
			loads[b] = &importLoad{interval: report.Interval}
		}
	}
}

func (s *State) addIssued(loads map[*backendState]*importLoad, backend fleet.Backend, interval time.Duration, issued float64) {
	b := s.backends[backend]
	if b == nil || backend.Kind != fleet.Import {
		return
	}
	if loads[b] == nil {
		loads[b] = &importLoad{}
	}
	loads[b].interval = max(loads[b].interval, interval)
	loads[b].issued += issued
}

func (i *importLoad) add(cluster fleet.ClusterName, l LocalityLoad) {
	i.succeeded += l.Succeeded
	i.failed += l.Failed
	if i.members == nil {
		i.members = map[fleet.ClusterName]*memberLoad{}
	}
	m := i.members[cluster]
	if m == nil {
		m = &memberLoad{}
		i.members[cluster] = m
	}
	m.Succeeded += l.Succeeded
	m.Failed += l.Failed
	m.issued += l.Issued
	m.Open += l.Open
}

// observeLoad takes one edge's counts. The shares are due when a member began or ceased to fail, or when the demand
// changed. An import without a rate and without requests costs nothing.
func (b *backendState) observeLoad(report LoadReport, load *importLoad, health healthEvents) {
	r := b.region(report.Edge.Region)
	key := report.Edge.Key()
	reportedBefore := r.setReached(key, load)
	retried := r.health.RetryUntried(report.At, b.sharesOf(report.Edge.Region).Down())
	b.healthChanged(report.Edge.Region, retried, health)
	if load.issued == 0 && load.succeeded+load.failed == 0 && b.policy.Rate == 0 && r.demand.Rate() == 0 && !r.waits() {
		return
	}
	exact := load.issued + r.fractions[key]
	issued := math.Floor(exact + 1e-9)
	r.fractions[key] = exact - issued
	before := r.demand.Rate()
	unserved := true
	for _, m := range b.members {
		unserved = unserved && m.Ready == 0
	}
	r.demand.Observe(traffic.Sample{Edge: key, End: report.At, Interval: load.interval, Issued: uint64(issued),
		Succeeded: load.succeeded, Failed: load.failed, Unserved: unserved})
	if issued > 0 {
		for _, cluster := range r.health.FailingMembers(key) {
			load.add(cluster, LocalityLoad{})
		}
	}
	for _, cluster := range slices.Sorted(maps.Keys(load.members)) {
		m := load.members[cluster]
		if !reportedBefore && m.Succeeded == 0 {
			continue // error answers or failed connections: the next report says which
		}
		m.Edge, m.Cluster, m.At = key, cluster, report.At
		if r.health.Observe(m.MemberSample) {
			b.healthChanged(report.Edge.Region, []fleet.ClusterName{cluster}, health)
		}
	}
	b.resplitDue = b.resplitDue || r.demand.Rate() != before || r.waits()
}

// healthChanged notes that members began or ceased to be held out or dead: the shares may move at once.
func (b *backendState) healthChanged(region string, clusters []fleet.ClusterName, health healthEvents) {
	for _, c := range clusters {
		b.movedAt, b.resplitDue = time.Time{}, true
		h := &b.region(region).health
		health[HealthEvent{Region: region, Cluster: c, HeldOut: slices.Contains(h.HeldOut(), c), Dead: slices.Contains(h.Dead(), c)}]++
	}
}

// setReached sets how many requests of an edge got to an endpoint of each member, or ended there: all that were open
// before or were issued since, without those that were open all the time. For the first report of an edge that is
// unknown, and the result is false.
func (r *regionState) setReached(edge string, load *importLoad) (reportedBefore bool) {
	before, reportedBefore := r.open[edge]
	if !reportedBefore && len(load.members) > 0 {
		before = map[fleet.ClusterName]uint64{}
		r.open[edge] = before
	}
	for cluster := range before {
		if load.members[cluster] == nil {
			delete(before, cluster)
		}
	}
	for cluster, m := range load.members {
		m.Reached = max(before[cluster]+m.issued, m.Open) - min(before[cluster], m.Open)
		before[cluster] = m.Open
	}
	return reportedBefore
}

// waits says whether the shares were learned and not all edges have reported since.
func (r *regionState) waits() bool { return !r.learnedAt.IsZero() && !r.settled }
