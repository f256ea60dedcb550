package lbsync

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// failingReports and failingRequests: a member is held out when an edge saw this many reports in a row in which
	// nothing succeeded, and this many requests failed since the report with its last success.
	failingReports  = 2
	failingRequests = 10
)

// Outcome is what one edge's report says of one member's part of an import.
type Outcome struct {
	Edge    string
	Cluster fleet.ClusterName
	// Succeeded and Failed count requests since the edge's last report. Failed are connect errors, resets and
	// answers with a 5xx status; load reports do not tell them apart. Issued are those that got as far as an endpoint:
	// a connection that cannot be made is Failed without being Issued.
	Succeeded, Failed, Issued uint64
}

// Health remembers, for one region and one import, which members' requests all fail. It decides about shares alone:
// Split ignores it where every member fails. The zero value holds nobody out.
type Health struct {
	runs map[fleet.ClusterName]map[string]run // by member and edge
	held map[fleet.ClusterName]bool
}

// run is one edge's unbroken row of reports without a success. A report without requests to the member counts when one
// with failures came before it: the edge has ejected every endpoint by then, which takes it about a second, so the
// second report of a dead member is silence more often than failure. The report in whose second the member died has
// both successes and failures: it begins a run and is no part of it, but its failures are.
type run struct {
	reports int
	failed  uint64
	// unreached: requests failed after the last one that got as far as an endpoint.
	unreached bool
}

// Observe adds a report of an import that has requests, and says whether what is known of the member changed. One
// success anywhere in the region brings it back at once.
func (h *Health) Observe(o Outcome) (changed bool) {
	held, unreachable := h.held[o.Cluster], h.unreachable(o.Cluster)
	h.observe(o)
	return held != h.held[o.Cluster] || unreachable != h.unreachable(o.Cluster)
}

func (h *Health) observe(o Outcome) {
	if h.runs == nil {
		h.runs, h.held = map[fleet.ClusterName]map[string]run{}, map[fleet.ClusterName]bool{}
	}
	if o.Succeeded > 0 {
		delete(h.held, o.Cluster)
		delete(h.runs, o.Cluster) // of every edge: the member answers in this region
		if o.Failed > 0 {
			h.runs[o.Cluster] = map[string]run{o.Edge: {failed: o.Failed}}
		}
		return
	}
	r := h.runs[o.Cluster][o.Edge]
	if o.Failed == 0 && r.failed == 0 {
		return
	}
	if h.runs[o.Cluster] == nil {
		h.runs[o.Cluster] = map[string]run{}
	}
	h.runs[o.Cluster][o.Edge] = run{reports: r.reports + 1, failed: r.failed + o.Failed, unreached: r.unreached || o.Failed > 0}
	reports, failed := 0, uint64(0)
	for edge, r := range h.runs[o.Cluster] {
		reports = max(reports, r.reports)
		failed += r.failed
		if o.Issued > 0 { // whoever saw it, the member's endpoints are there
			r.unreached = false
			h.runs[o.Cluster][edge] = r
		}
	}
	if reports >= failingReports && failed >= failingRequests {
		h.held[o.Cluster] = true
	}
}

// unreachable says whether a member is held out and not even connections to it can be made.
func (h *Health) unreachable(cluster fleet.ClusterName) bool {
	for _, r := range h.runs[cluster] {
		if r.unreached {
			return h.held[cluster]
		}
	}
	return false
}

// Hold holds a member out because the shares in force say so: how a hub that has just started learns it. Where all are
// held out, they are unreachable (RegionShares).
func (h *Health) Hold(cluster fleet.ClusterName) {
	if h.held == nil {
		h.runs, h.held = map[fleet.ClusterName]map[string]run{}, map[fleet.ClusterName]bool{}
	}
	h.held[cluster] = true
	h.runs[cluster] = map[string]run{"": {unreached: true}}
}

// Retry forgets what is known of a member: something says that it is back.
func (h *Health) Retry(cluster fleet.ClusterName) (changed bool) {
	changed = h.held[cluster]
	delete(h.held, cluster)
	delete(h.runs, cluster)
	return changed
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
func (h *Health) Unreachable() []fleet.ClusterName {
	return slices.DeleteFunc(h.HeldOut(), func(c fleet.ClusterName) bool { return !h.unreachable(c) })
}
