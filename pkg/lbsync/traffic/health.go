package traffic

import (
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// A member is held out when an edge saw minFailedReports in a row in which nothing succeeded, and the region's edges
	// saw minFailedConnects requests fail without a connection since one of them last reached an endpoint. What endpoints
	// answer, and connections that they close, hold no member out: clients can cause both.
	minFailedReports  = 2
	minFailedConnects = 4
	// reachedTimeout is for how long a request that got to an endpoint proves that the member is not dead: through the
	// edge's next report, which comes after a second. openTimeout is the same for a request that is still open: longer
	// than a connection to a peer that vanished lasts (2 s), and shorter than a WebSocket.
	reachedTimeout = 1500 * time.Millisecond
	openTimeout    = 5 * time.Second
	// minRetryDelay is after which time without a request a held-out member gets its share back: where clients are few,
	// the 1 % that probes it may be no request for minutes. The delay doubles with each retry that fails, up to
	// maxRetryDelay.
	minRetryDelay = 30 * time.Second
	maxRetryDelay = 5 * time.Minute
	// gainedRetryDelay is the same for a member that has new endpoints: if the 1 % were a request in that time, it would
	// have said whether they answer.
	gainedRetryDelay = 2 * time.Second
)

// MemberSample is what one edge counted for one member's part of an import since its last report.
type MemberSample struct {
	Edge    string
	Cluster fleet.ClusterName
	At      time.Time // of the report
	// Succeeded and Failed count requests. Failed are connect errors, resets and answers with a 5xx status; load reports
	// do not distinguish them, but count no connect error as issued.
	Succeeded, Failed uint64
	// Reached counts requests that got to an endpoint, or ended at one, whatever their result; Open counts requests that
	// have not ended. Where both are 0, the failed requests had no connection. On a kept connection to a peer that
	// vanished a request counts as open until the connection is reset.
	Reached, Open uint64
}

// HeldOutMember is a member that is held out.
type HeldOutMember struct {
	Cluster fleet.ClusterName
	Dead    bool      // and no request has reached it for a while
	RetryAt time.Time // when it gets its share back, unless a request probes it before
}

// Health remembers for one region and one import to which members no connection can be made. It decides about shares alone: Split
// ignores it where every member fails. The zero value holds nobody out.
type Health struct {
	failures map[fleet.ClusterName]map[string]failureRun // by member and edge
	heldOut  map[fleet.ClusterName]*heldOut
}

// failureRun is one edge's unbroken row of reports without a success. A report without requests to the member counts
// when a report with failures came before it. The edge has ejected every endpoint by then, which takes it about a
// second, so the second report of a dead member often counts no request. The report of the second in which the member
// died has both successes and failures: it begins a run and is no part of it, but its failures are.
type failureRun struct {
	reports int
	failed  uint64
	// failedConnects are the failed requests without a connection since an edge last reached an endpoint.
	failedConnects uint64
	// reachableUntil: before this time, requests that reached an endpoint prove that the member is not dead.
	reachableUntil time.Time
}

// heldOut is a member that is held out, or was and gets its share back on trial.
type heldOut struct {
	dead        bool          // no request has reached it for a while
	lastRequest time.Time     // when it last had a request
	retryDelay  time.Duration // how long after lastRequest it gets its share back
	retried     bool          // it has its share back; only retryDelay is remembered until it succeeds or fails
	gained      bool          // new endpoints of it may be tried early; once, until it succeeds
}

// Observe adds a report of an import that has requests. It says whether the member began or ceased to be held out or
// dead. One success anywhere in the region readmits it at once.
func (h *Health) Observe(s MemberSample) (changed bool) {
	h.init()
	wasHeldOut, wasDead := h.isHeldOut(s.Cluster), h.isDead(s.Cluster)
	if s.Succeeded > 0 {
		h.succeed(s)
	} else {
		h.fail(s)
	}
	if m := h.heldOut[s.Cluster]; m != nil && s.Failed+s.Reached > 0 {
		m.lastRequest = s.At
		m.dead = m.dead && s.Reached == 0 // whichever edge reached it, the member's endpoints are there
	}
	return wasHeldOut != h.isHeldOut(s.Cluster) || wasDead != h.isDead(s.Cluster)
}

func (h *Health) init() {
	if h.failures == nil {
		h.failures, h.heldOut = map[fleet.ClusterName]map[string]failureRun{}, map[fleet.ClusterName]*heldOut{}
	}
}

func (h *Health) isHeldOut(cluster fleet.ClusterName) bool {
	m := h.heldOut[cluster]
	return m != nil && !m.retried
}

func (h *Health) isDead(cluster fleet.ClusterName) bool {
	return h.isHeldOut(cluster) && h.heldOut[cluster].dead
}

func (h *Health) succeed(s MemberSample) {
	delete(h.heldOut, s.Cluster)
	delete(h.failures, s.Cluster) // of every edge: the member answers in this region
	if s.Failed > 0 {
		h.failures[s.Cluster] = map[string]failureRun{s.Edge: {failed: s.Failed}}
	}
}

func (h *Health) fail(s MemberSample) {
	if h.failures[s.Cluster] == nil {
		h.failures[s.Cluster] = map[string]failureRun{}
	}
	runs := h.failures[s.Cluster]
	r := runs[s.Edge]
	if r.failed += s.Failed; r.failed > 0 {
		r.reports++
	}
	if s.Reached == 0 {
		r.failedConnects += s.Failed
	} else {
		r.failedConnects, r.reachableUntil = 0, s.At.Add(reachedTimeout)
		if s.Open > 0 {
			r.reachableUntil = s.At.Add(openTimeout)
		}
		for edge, other := range runs {
			other.failedConnects = 0
			runs[edge] = other
		}
	}
	runs[s.Edge] = r
	h.evaluate(s.Cluster, s.At)
}

// evaluate holds a member out where the failures of all edges together suffice.
func (h *Health) evaluate(cluster fleet.ClusterName, now time.Time) {
	reports, failedConnects, reachable := 0, uint64(0), false
	for _, r := range h.failures[cluster] {
		reports = max(reports, r.reports)
		failedConnects += r.failedConnects
		reachable = reachable || now.Before(r.reachableUntil)
	}
	if reports < minFailedReports || failedConnects < minFailedConnects {
		return
	}
	m := h.heldOut[cluster]
	if m == nil {
		m = &heldOut{retryDelay: minRetryDelay, lastRequest: now}
		h.heldOut[cluster] = m
	}
	if m.retried {
		m.retried, m.lastRequest = false, now
	}
	m.dead = m.dead || !reachable
}

// HoldOut holds a member out because the shares in force say so. A hub that has just started learns it from them.
func (h *Health) HoldOut(cluster fleet.ClusterName, dead bool, now time.Time) {
	h.init()
	h.heldOut[cluster] = &heldOut{dead: dead, lastRequest: now, retryDelay: minRetryDelay}
}

// Adopt makes the members that are held out, and the dead ones of them, those that another replica of the hub knows. What
// is known of their failures stays.
func (h *Health) Adopt(heldOut, dead []fleet.ClusterName, now time.Time) {
	for _, cluster := range heldOut {
		switch m := h.heldOut[cluster]; {
		case m == nil:
			h.HoldOut(cluster, false, now)
		case m.retried:
			m.retried, m.lastRequest = false, now
		}
		h.heldOut[cluster].dead = slices.Contains(dead, cluster)
	}
	for _, cluster := range h.HeldOut() {
		if !slices.Contains(heldOut, cluster) {
			h.heldOut[cluster].retried, h.heldOut[cluster].dead = true, false
		}
	}
}

// Gained says that a member has ready endpoints that it did not have. What is known of it stays: the 1 % that probes a
// held-out member tries them, too. Where that is no request for a while, they are tried once before their time, since
// slices that change without end must not have the member tried without end.
func (h *Health) Gained(cluster fleet.ClusterName) {
	if m := h.heldOut[cluster]; m != nil && m.retryDelay == minRetryDelay {
		m.gained = true
	}
}

// Readmit forgets the failures of a member that is probably back: its agent reconnected.
func (h *Health) Readmit(cluster fleet.ClusterName) (changed bool) {
	changed = h.isHeldOut(cluster)
	delete(h.heldOut, cluster)
	delete(h.failures, cluster)
	return changed
}

// RetryUntried gives the members that had no request for their retry delay their share back, and returns them, sorted.
// Where all members are dead, all are tried alike, so that a request to any of them says enough and none is retried.
func (h *Health) RetryUntried(now time.Time, allDead bool) (retried []fleet.ClusterName) {
	for cluster, m := range h.heldOut {
		if m.retried {
			continue
		}
		if idle := now.Sub(m.lastRequest); idle >= m.retryDelay || m.gained && idle >= gainedRetryDelay {
			retried = append(retried, cluster)
		} else if allDead {
			return nil
		}
	}
	for _, cluster := range retried {
		m := h.heldOut[cluster]
		m.retried, m.dead, m.gained, m.retryDelay = true, false, false, min(2*m.retryDelay, maxRetryDelay)
		delete(h.failures, cluster)
	}
	slices.Sort(retried)
	return retried
}

// FailingMembers lists the members with failures at an edge since its last report of successes alone, sorted. Only for
// them does a report without requests say something.
func (h *Health) FailingMembers(edge string) []fleet.ClusterName {
	var failing []fleet.ClusterName
	for cluster, runs := range h.failures {
		if runs[edge].failed > 0 {
			failing = append(failing, cluster)
		}
	}
	slices.Sort(failing)
	return failing
}

// ForgetEdge removes an edge that is gone.
func (h *Health) ForgetEdge(edge string) {
	for cluster, runs := range h.failures {
		if delete(runs, edge); len(runs) == 0 {
			delete(h.failures, cluster)
		}
	}
}

// HeldOut lists the members held out, sorted.
func (h *Health) HeldOut() []fleet.ClusterName {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.heldOut)), func(c fleet.ClusterName) bool { return !h.isHeldOut(c) })
}

// Dead lists the members of HeldOut that no request has reached for a while, sorted.
func (h *Health) Dead() []fleet.ClusterName {
	return slices.DeleteFunc(h.HeldOut(), func(c fleet.ClusterName) bool { return !h.isDead(c) })
}

// HeldOutMembers is HeldOut with the details of each member.
func (h *Health) HeldOutMembers() []HeldOutMember {
	var out []HeldOutMember
	for _, c := range h.HeldOut() {
		m := h.heldOut[c]
		out = append(out, HeldOutMember{Cluster: c, Dead: m.dead, RetryAt: m.lastRequest.Add(m.retryDelay)})
	}
	return out
}
