package delta

import (
	"maps"
	"slices"
	"strconv"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Next is the next response to send, or nil and the time after which to ask again
// (0: after the next change). The order is make before break:
//
//	runtime · secrets and clusters · their assignments · (clusters ACKed) ·
//	listeners, routes · (these ACKed) · removal of unused clusters
func (s *Stream) Next(now time.Time) (*discovery.DeltaDiscoveryResponse, time.Duration) {
	if r := s.nextSingle(runtimes, now); r != nil {
		return r, 0
	}
	s.assignmentsFirst = !s.assignmentsFirst
	if s.assignmentsFirst {
		if r := s.nextSingle(assignments, now); r != nil {
			return r, 0
		}
	}
	if r := s.nextSingle(secrets, now); r != nil {
		return r, 0
	}
	if r := s.nextBatch(clusters, now); r != nil {
		return r, 0
	}
	wait := s.untilWarm(now)
	if wait <= 0 {
		if r := s.nextTraffic(now); r != nil {
			return r, 0
		}
	}
	if r := s.nextSingle(assignments, now); r != nil {
		return r, 0
	}
	if s.appliedAll(listeners) && s.appliedAll(routes) {
		if r := s.nextRemoval(clusters, now); r != nil {
			return r, 0
		}
	}
	return s.nextUnknownNames(now), wait
}

// nextTraffic is the next response that changes where requests go.
func (s *Stream) nextTraffic(now time.Time) *discovery.DeltaDiscoveryResponse {
	if r := s.nextBatch(listeners, now); r != nil {
		return r
	}
	return s.nextSingle(routes, now)
}

// untilWarm is how long listeners and routes must still wait for clusters
// that are not warm: at most warmTimeout from when they began to. Clusters that
// the edge NACKs, or that timed out before, are not waited for.
func (s *Stream) untilWarm(now time.Time) time.Duration {
	pending := false
	for _, k := range []Kind{listeners, routes} {
		sub := &s.kinds[k]
		pending = pending || sub.mustRespond || !sub.queue.empty() || len(sub.toRemove) > 0
	}
	if !pending || !s.kinds[clusters].started {
		s.warmWaitSince = time.Time{}
		return 0
	}
	if !s.kinds[clusters].mustRespond && !s.anyWarming(nil) {
		s.warmWaitSince = time.Time{}
		return 0
	}
	if s.warmWaitSince.IsZero() {
		s.warmWaitSince = now
	}
	if wait := s.warmTimeout - now.Sub(s.warmWaitSince); wait > 0 {
		return wait
	}
	if !s.anyWarming(func(e *entry, version string) { e.warmTimedOut = version }) {
		s.warmWaitSince = time.Time{}
	}
	return 0
}

// anyWarming says whether there is a cluster to wait for. timeOut, if any, is
// called for each that is not applied, and may end the wait for it.
func (s *Stream) anyWarming(timeOut func(e *entry, version string)) bool {
	sub := &s.kinds[clusters]
	for name := range sub.notApplied {
		version := s.pool.kinds[clusters].resources[name].version()
		e := sub.entries[name]
		if e != nil && timeOut != nil {
			timeOut(e, version)
		}
		if e == nil || e.nack.Version != version && e.warmTimedOut != version {
			return true
		}
	}
	return false
}

// nextDue removes the next resource that is still due from the queue. There is
// none if the entry is nil.
func (s *Stream) nextDue(k Kind) (encoded, *entry) {
	sub := &s.kinds[k]
	for !sub.queue.empty() {
		name := sub.queue.pop()
		e := sub.entries[name]
		if want, desired := s.desired(k, name); desired && e != nil && sub.due(e, want.version()) {
			return want, e
		}
	}
	return encoded{}, nil
}

// nextSingle is a response with one resource, or an empty one if one must be sent.
func (s *Stream) nextSingle(k Kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	sub := &s.kinds[k]
	if !s.maySend(k) {
		return nil
	}
	r := response{sentAt: now}
	var list []*discovery.Resource
	if want, e := s.nextDue(k); e != nil {
		list, r.items = append(list, want.wire), append(r.items, markSent(e, want))
	} else if !sub.mustRespond {
		return nil
	}
	return s.message(k, r, list)
}

// maxBatchSize bounds a batch: each stream has one or two responses in memory that
// its edge does not read.
const maxBatchSize = 256 << 10

// nextBatch is a response with the resources that are due, up to a size. For
// listeners it also has the removals: an address may move from one listener to
// another.
func (s *Stream) nextBatch(k Kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	sub := &s.kinds[k]
	if !s.maySend(k) {
		return nil
	}
	r := response{sentAt: now}
	var list []*discovery.Resource
	for size := 0; size < maxBatchSize; size += len(list[len(list)-1].GetResource().GetValue()) {
		want, e := s.nextDue(k)
		if e == nil {
			break
		}
		if e.sendAlone && len(list) > 0 { // back to the end of the queue
			sub.queue.add(want.wire.Name)
			break
		}
		list, r.items = append(list, want.wire), append(r.items, markSent(e, want))
		if e.sendAlone {
			break
		}
	}
	if k == clusters {
		s.resendAssignments(r)
	}
	var removed []string
	if k == listeners {
		removed = s.markRemoved(k, &r)
	}
	if len(list)+len(removed) == 0 && !sub.mustRespond {
		return nil
	}
	m := s.message(k, r, list)
	m.RemovedResources = removed
	return m
}

// markSent notes that a resource is being sent.
func markSent(e *entry, want encoded) item {
	e.sent, e.unanswered = want.version(), false
	return item{name: want.wire.Name, version: e.sent, entry: e}
}

// resendAssignments lets the clusters of a response finish warming. Envoy asks for
// a new cluster's assignment, but not for one that it has subscribed to already.
func (s *Stream) resendAssignments(r response) {
	for _, i := range r.items {
		name := s.pool.kinds[clusters].resources[i.name].assignment
		if e := s.kinds[assignments].entries[name]; e != nil && e.subscribed {
			e.sent = ""
			s.reconcile(assignments, name)
		}
	}
}

// nextRemoval is a response that removes what the edge should no longer have.
func (s *Stream) nextRemoval(k Kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	if !s.maySend(k) {
		return nil
	}
	r := response{sentAt: now}
	removed := s.markRemoved(k, &r)
	if len(removed) == 0 {
		return nil
	}
	m := s.message(k, r, nil)
	m.RemovedResources = removed
	return m
}

// markRemoved notes that all removals of a kind are being sent, and returns the
// names, sorted.
func (s *Stream) markRemoved(k Kind, r *response) []string {
	sub := &s.kinds[k]
	removed := sub.untracked
	sub.untracked = nil
	for !sub.removals.empty() {
		name := sub.removals.pop()
		if _, remove := sub.toRemove[name]; remove && sub.entries[name].sent != "" {
			e := sub.entries[name]
			e.sent = ""
			removed = append(removed, name)
			r.items = append(r.items, item{name: name, entry: e})
		}
	}
	slices.Sort(removed)
	return removed
}

// nextUnknownNames is a response that says which subscribed names do not exist. A
// resource of such a name is sent once it exists.
func (s *Stream) nextUnknownNames(now time.Time) *discovery.DeltaDiscoveryResponse {
	for k := range s.kinds {
		if sub := &s.kinds[k]; len(sub.unknownNames) > 0 && s.maySend(Kind(k)) {
			mustRespond := sub.mustRespond // this is no answer to a wildcard
			m := s.message(Kind(k), response{sentAt: now}, nil)
			m.RemovedResources, sub.mustRespond = slices.Sorted(maps.Keys(sub.unknownNames)), mustRespond
			clear(sub.unknownNames)
			return m
		}
	}
	return nil
}

// message puts a response in flight.
func (s *Stream) message(k Kind, r response, list []*discovery.Resource) *discovery.DeltaDiscoveryResponse {
	s.nonce++
	r.snapshot = s.pool.generation
	nonce := strconv.FormatUint(s.nonce, 10)
	sub := &s.kinds[k]
	sub.mustRespond = false
	sub.inFlight[nonce] = r
	sub.unanswered += r.size()
	return &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: strconv.FormatUint(s.pool.generation, 10),
		TypeUrl:           typeURLs[k], Nonce: nonce, Resources: list,
	}
}
