package lbsync

import (
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// failingReports and failingRequests: a member is held out when an edge saw this many reports in a row in which
	// nothing succeeded, and this many requests failed since the report with its last success. Connections that cannot
	// be made say more than answers: of requests that failed for them, failingConnections are enough.
	failingReports     = 2
	failingRequests    = 10
	failingConnections = 4
	// reachedCounts is for how long a request that an edge got to an endpoint says that a member is not dead: through the
	// edge's next report, which comes after a second. openCounts is for how long one does that is open there: longer than
	// a connection to a peer that vanished lasts (2 s), and not as long as a WebSocket.
	reachedCounts, openCounts = 1500 * time.Millisecond, 5 * time.Second
	// untried is after which time without a request a member that is held out is tried by all: where clients are few,
	// the part that tries it may be no request for minutes. Each time that fails it is twice as long.
	untried, longUntried = 30 * time.Second, 5 * time.Minute
)

// Outcome is what one edge's report says of one member's part of an import.
type Outcome struct {
	Edge    string
	Cluster fleet.ClusterName
	At      time.Time // of the report
	// Succeeded and Failed count requests since the edge's last report. Failed are connect errors, resets and
	// answers with a 5xx status; load reports do not tell them apart.
	Succeeded, Failed uint64
	// Reached counts requests that got to an endpoint since then, or ended at one, however; Open those that are there now.
	// Where there are none, what failed had no connection. On a kept connection to a peer that vanished a request is
	// there, too, until it is reset.
	Reached, Open uint64
}

// Health remembers, for one region and one import, which members' requests all fail. It decides about shares alone:
// Split ignores it where every member fails. The zero value holds nobody out.
type Health struct {
	runs map[fleet.ClusterName]map[string]run // by member and edge
	held map[fleet.ClusterName]*heldOut
}

// run is one edge's unbroken row of reports without a success. A report without requests to the member counts when one
// with failures came before it: the edge has ejected every endpoint by then, which takes it about a second, so the
// second report of a dead member is silence more often than failure. The report in whose second the member died has
// both successes and failures: it begins a run and is no part of it, but its failures are.
type run struct {
	reports int
	failed  uint64
	// unsent are those of failed without a connection, since an edge last reached an endpoint.
	unsent uint64
	// speaks is until when what the edge reached says that the member is not dead.
	speaks time.Time
}

// heldOut is what is known of a member that is held out.
type heldOut struct {
	dead  bool          // not even connections can be made
	tried time.Time     // when it last had a request
	wait  time.Duration // until it is tried by all
	over  bool          // it is tried by all: it is held out no more, and only the next wait is remembered
}

// Observe adds a report of an import that has requests, and says whether what is known of the member changed. One
// success anywhere in the region brings it back at once.
func (h *Health) Observe(o Outcome) (changed bool) {
	h.start()
	held, dead := h.holds(o.Cluster), h.dead(o.Cluster)
	if o.Succeeded > 0 {
		h.succeed(o)
	} else {
		h.fail(o)
	}
	if known := h.held[o.Cluster]; known != nil && o.Failed+o.Reached > 0 {
		known.tried = o.At
		known.dead = known.dead && o.Reached == 0 // whoever saw it, the member's endpoints are there
	}
	return held != h.holds(o.Cluster) || dead != h.dead(o.Cluster)
}

func (h *Health) start() {
	if h.runs == nil {
		h.runs, h.held = map[fleet.ClusterName]map[string]run{}, map[fleet.ClusterName]*heldOut{}
	}
}

func (h *Health) holds(cluster fleet.ClusterName) bool {
	known := h.held[cluster]
	return known != nil && !known.over
}

func (h *Health) dead(cluster fleet.ClusterName) bool {
	return h.holds(cluster) && h.held[cluster].dead
}

func (h *Health) succeed(o Outcome) {
	delete(h.held, o.Cluster)
	delete(h.runs, o.Cluster) // of every edge: the member answers in this region
	if o.Failed > 0 {
		h.runs[o.Cluster] = map[string]run{o.Edge: {failed: o.Failed}}
	}
}

func (h *Health) fail(o Outcome) {
	if h.runs[o.Cluster] == nil {
		h.runs[o.Cluster] = map[string]run{}
	}
	runs := h.runs[o.Cluster]
	r := runs[o.Edge]
	if r.failed += o.Failed; r.failed > 0 {
		r.reports++
	}
	if o.Reached == 0 {
		r.unsent += o.Failed
	} else {
		r.unsent, r.speaks = 0, o.At.Add(reachedCounts)
		if o.Open > 0 {
			r.speaks = o.At.Add(openCounts)
		}
		for edge, other := range runs {
			other.unsent = 0
			runs[edge] = other
		}
	}
	runs[o.Edge] = r
	h.judge(o.Cluster, o.At)
}

// judge holds a member out for what all edges saw of it.
func (h *Health) judge(cluster fleet.ClusterName, now time.Time) {
	all, reached := run{}, false
	for _, r := range h.runs[cluster] {
		all.reports = max(all.reports, r.reports)
		all.failed += r.failed
		all.unsent += r.unsent
		reached = reached || now.Before(r.speaks)
	}
	if all.reports < failingReports || all.failed < failingRequests && all.unsent < failingConnections {
		return
	}
	known := h.held[cluster]
	if known == nil {
		known = &heldOut{wait: untried, tried: now}
		h.held[cluster] = known
	}
	if known.over {
		known.over, known.tried = false, now
	}
	known.dead = known.dead || all.unsent >= failingConnections && !reached
}

// Hold holds a member out because the shares in force say so: how a hub that has just started learns it.
func (h *Health) Hold(cluster fleet.ClusterName, dead bool, now time.Time) {
	h.start()
	h.held[cluster] = &heldOut{dead: dead, tried: now, wait: untried}
}

// Retry forgets what is known of a member: something says that it is back.
func (h *Health) Retry(cluster fleet.ClusterName) (changed bool) {
	changed = h.holds(cluster)
	delete(h.held, cluster)
	delete(h.runs, cluster)
	return changed
}

// Expire ends the holding out of members that had no request for too long, and gives them, sorted. Where all are dead,
// all are tried alike, and any request to one of them tells enough.
func (h *Health) Expire(now time.Time, allDead bool) (retried []fleet.ClusterName) {
	for cluster, known := range h.held {
		if known.over {
			continue
		}
		if now.Sub(known.tried) >= known.wait {
			retried = append(retried, cluster)
		} else if allDead {
			return nil
		}
	}
	for _, cluster := range retried {
		known := h.held[cluster]
		known.over, known.dead, known.wait = true, false, min(2*known.wait, longUntried)
		delete(h.runs, cluster)
	}
	slices.Sort(retried)
	return retried
}

// Suspects lists the members that failed at an edge since it last saw nothing but successes, sorted: those of which
// silence says something.
func (h *Health) Suspects(edge string) []fleet.ClusterName {
	var suspects []fleet.ClusterName
	for cluster, runs := range h.runs {
		if runs[edge].failed > 0 {
			suspects = append(suspects, cluster)
		}
	}
	slices.Sort(suspects)
	return suspects
}

// Forget removes an edge that is gone.
func (h *Health) Forget(edge string) {
	for cluster, runs := range h.runs {
		if delete(runs, edge); len(runs) == 0 {
			delete(h.runs, cluster)
		}
	}
}

// HeldOut lists the members held out, sorted.
func (h *Health) HeldOut() []fleet.ClusterName {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.held)), func(c fleet.ClusterName) bool { return !h.holds(c) })
}

// Dead lists those of HeldOut to which not even connections can be made, sorted. The others can be reached, and errors are
// answers.
func (h *Health) Dead() []fleet.ClusterName {
	return slices.DeleteFunc(h.HeldOut(), func(c fleet.ClusterName) bool { return !h.dead(c) })
}
