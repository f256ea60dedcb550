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
	// untried is after which time without a request a member that is held out is tried by all: where clients are few,
	// the part that tries it may be no request for minutes.
	untried = 30 * time.Second
)

// Outcome is what one edge's report says of one member's part of an import.
type Outcome struct {
	Edge    string
	Cluster fleet.ClusterName
	At      time.Time // of the report
	// Succeeded and Failed count requests since the edge's last report. Failed are connect errors, resets and
	// answers with a 5xx status; load reports do not tell them apart.
	Succeeded, Failed uint64
	// Ended counts requests that had got as far as an endpoint and ended there, however: what failed beside them had
	// no connection.
	Ended uint64
}

// unsent are the requests that failed because no connection could be made.
func (o Outcome) unsent() uint64 {
	answered := max(o.Ended, o.Succeeded) - o.Succeeded
	return max(o.Failed, answered) - answered
}

// Health remembers, for one region and one import, which members' requests all fail. It decides about shares alone:
// Split ignores it where every member fails. The zero value holds nobody out.
type Health struct {
	runs        map[fleet.ClusterName]map[string]run // by member and edge
	held        map[fleet.ClusterName]bool
	unreachable map[fleet.ClusterName]bool      // of those held
	tried       map[fleet.ClusterName]time.Time // when those held had their last request
}

// run is one edge's unbroken row of reports without a success. A report without requests to the member counts when one
// with failures came before it: the edge has ejected every endpoint by then, which takes it about a second, so the
// second report of a dead member is silence more often than failure. The report in whose second the member died has
// both successes and failures: it begins a run and is no part of it, but its failures are.
type run struct {
	reports int
	failed  uint64
	// unsent are those of failed without a connection, since an endpoint last answered; answers: it did in the last
	// report that has any request.
	unsent  uint64
	answers bool
}

// Observe adds a report of an import that has requests, and says whether what is known of the member changed. One
// success anywhere in the region brings it back at once.
func (h *Health) Observe(o Outcome) (changed bool) {
	h.start()
	held, unreachable := h.held[o.Cluster], h.unreachable[o.Cluster]
	h.observe(o)
	if !h.held[o.Cluster] {
		delete(h.tried, o.Cluster)
	} else if !held || o.Failed+o.Ended > 0 {
		h.tried[o.Cluster] = o.At
	}
	return held != h.held[o.Cluster] || unreachable != h.unreachable[o.Cluster]
}

func (h *Health) start() {
	if h.runs == nil {
		h.runs = map[fleet.ClusterName]map[string]run{}
		h.held, h.unreachable = map[fleet.ClusterName]bool{}, map[fleet.ClusterName]bool{}
		h.tried = map[fleet.ClusterName]time.Time{}
	}
}

func (h *Health) observe(o Outcome) {
	if o.Ended+o.Succeeded > 0 { // whoever saw it, the member's endpoints are there
		delete(h.unreachable, o.Cluster)
	}
	if o.Succeeded > 0 {
		delete(h.held, o.Cluster)
		delete(h.runs, o.Cluster) // of every edge: the member answers in this region
		if o.Failed > 0 {
			h.runs[o.Cluster] = map[string]run{o.Edge: {failed: o.Failed, unsent: o.unsent()}}
		}
		return
	}
	r := h.runs[o.Cluster][o.Edge]
	if o.Failed == 0 && r.failed == 0 {
		return
	}
	r.reports, r.failed = r.reports+1, r.failed+o.Failed
	switch {
	case o.Ended > 0:
		r.answers, r.unsent = true, 0
	case o.Failed > 0:
		r.answers, r.unsent = false, r.unsent+o.Failed
	}
	if h.runs[o.Cluster] == nil {
		h.runs[o.Cluster] = map[string]run{}
	}
	h.runs[o.Cluster][o.Edge] = r
	h.judge(o.Cluster)
}

// judge holds a member out for what all edges saw of it.
func (h *Health) judge(cluster fleet.ClusterName) {
	all := run{}
	for _, r := range h.runs[cluster] {
		all.reports = max(all.reports, r.reports)
		all.failed += r.failed
		all.unsent += r.unsent
		all.answers = all.answers || r.answers
	}
	if all.reports >= failingReports && (all.failed >= failingRequests || all.unsent >= failingConnections) {
		h.held[cluster] = true
		if all.unsent >= failingConnections && !all.answers {
			h.unreachable[cluster] = true
		}
	}
}

// Hold holds a member out because the shares in force say so: how a hub that has just started learns it.
func (h *Health) Hold(cluster fleet.ClusterName, unreachable bool, now time.Time) {
	h.start()
	h.held[cluster], h.tried[cluster] = true, now
	if unreachable {
		h.unreachable[cluster] = true
	}
}

// Retry forgets what is known of a member: something says that it is back.
func (h *Health) Retry(cluster fleet.ClusterName) (changed bool) {
	changed = h.held[cluster]
	delete(h.held, cluster)
	delete(h.unreachable, cluster)
	delete(h.runs, cluster)
	delete(h.tried, cluster)
	return changed
}

// Expire retries the members that had no request for too long, and gives them, sorted.
func (h *Health) Expire(now time.Time) (retried []fleet.ClusterName) {
	for cluster, at := range h.tried {
		if now.Sub(at) >= untried {
			h.Retry(cluster)
			retried = append(retried, cluster)
		}
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
func (h *Health) HeldOut() []fleet.ClusterName { return slices.Sorted(maps.Keys(h.held)) }

// Unreachable lists those of HeldOut to which not even connections can be made, sorted. The others answer, if only with
// errors, and errors are answers.
func (h *Health) Unreachable() []fleet.ClusterName { return slices.Sorted(maps.Keys(h.unreachable)) }
