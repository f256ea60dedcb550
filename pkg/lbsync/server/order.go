package server

import (
	"maps"
	"slices"
	"strconv"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// next is the next response for the edge, or nil and after which time to ask
// again (0: when woken). This is the order of make before break:
//
//	secrets and clusters · their assignments · (clusters ACKed) ·
//	listeners, scopes, routes · (these ACKed) · clusters that nobody uses
func (s *stream) next(now time.Time) (*discovery.DeltaDiscoveryResponse, time.Duration) {
	s.assignmentsFirst = !s.assignmentsFirst
	if s.assignmentsFirst {
		if r := s.single(assignments, now); r != nil {
			return r, 0
		}
	}
	if r := s.single(secrets, now); r != nil {
		return r, 0
	}
	if r := s.batch(clusters, now); r != nil {
		return r, 0
	}
	wait := s.untilWarm(now)
	if wait <= 0 {
		if r := s.traffic(now); r != nil {
			return r, 0
		}
	}
	if r := s.single(assignments, now); r != nil {
		return r, 0
	}
	if s.has(listeners) && s.has(scopes) && s.has(routes) {
		if r := s.removals(clusters, now); r != nil {
			return r, 0
		}
	}
	return s.absences(now), wait
}

// traffic is the next response that sends requests elsewhere. A scope is added
// before the old ones go: a host is never without.
func (s *stream) traffic(now time.Time) *discovery.DeltaDiscoveryResponse {
	if r := s.batch(listeners, now); r != nil {
		return r
	}
	for _, k := range []kind{scopes, routes} {
		if r := s.single(k, now); r != nil {
			return r
		}
	}
	if !s.kinds[scopes].queue.empty() { // the window is full
		return nil
	}
	return s.removals(scopes, now)
}

// untilWarm is how long the traffic must still wait for clusters that are not
// warm: at most warmTimeout from when it began to. Clusters that the edge
// refuses, or that took too long before, are not waited for.
func (s *stream) untilWarm(now time.Time) time.Duration {
	pending := false
	for _, k := range []kind{listeners, scopes, routes} {
		sub := &s.kinds[k]
		pending = pending || sub.owed || !sub.queue.empty() || len(sub.stale) > 0
	}
	if !pending || !s.kinds[clusters].started {
		s.waitsSince = time.Time{}
		return 0
	}
	if !s.kinds[clusters].owed && !s.anyCold(nil) {
		s.waitsSince = time.Time{}
		return 0
	}
	if s.waitsSince.IsZero() {
		s.waitsSince = now
	}
	if wait := s.warmTimeout - now.Sub(s.waitsSince); wait > 0 {
		return wait
	}
	if !s.anyCold(func(e *entry, version string) { e.late = version }) {
		s.waitsSince = time.Time{}
	}
	return 0
}

// anyCold says whether there are clusters to wait for; giveUp, if any, is called
// for each and may end that.
func (s *stream) anyCold(giveUp func(e *entry, version string)) bool {
	sub := &s.kinds[clusters]
	for name := range sub.missing {
		version := s.pool.kinds[clusters].resources[name].version()
		e := sub.entries[name]
		if e != nil && giveUp != nil {
			giveUp(e, version)
		}
		if e == nil || e.refused.Version != version && e.late != version {
			return true
		}
	}
	return false
}

// take removes the next resource that is still due from the queue.
func (s *stream) take(k kind) (resource, *entry) {
	sub := &s.kinds[k]
	for !sub.queue.empty() {
		name := sub.queue.pop()
		e := sub.entries[name]
		if want, wanted := s.pool.wanted(k, name); wanted && e != nil && sub.due(e, want.version()) {
			return want, e
		}
	}
	return resource{}, nil
}

// single is a response with one resource. An owed answer without any is empty.
func (s *stream) single(k kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	sub := &s.kinds[k]
	if !s.pool.kinds[k].ready || len(sub.inflight) >= window {
		return nil
	}
	p := push{at: now}
	var list []*discovery.Resource
	if want, e := s.take(k); e != nil {
		list, p.items = append(list, want.wire), append(p.items, s.note(e, want))
	} else if !sub.owed {
		return nil
	}
	return s.response(k, p, list)
}

// batch is a response with all resources that are due, and for listeners also
// with the removals: an address may move from one name to another.
func (s *stream) batch(k kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	sub := &s.kinds[k]
	if !s.pool.kinds[k].ready || len(sub.inflight) >= window {
		return nil
	}
	p := push{at: now}
	var list []*discovery.Resource
	for {
		want, e := s.take(k)
		if e == nil {
			break
		}
		if e.alone && len(list) > 0 { // back to the end of the queue, for later
			sub.queue.add(want.wire.Name)
			break
		}
		list, p.items = append(list, want.wire), append(p.items, s.note(e, want))
		if e.alone {
			break
		}
	}
	if k == clusters {
		s.resendAssignments(p)
	}
	var removed []string
	if k == listeners {
		removed = s.dropStale(k, &p)
	}
	if len(list)+len(removed) == 0 && !sub.owed {
		return nil
	}
	r := s.response(k, p, list)
	r.RemovedResources = removed
	return r
}

// note records that a resource is being sent.
func (s *stream) note(e *entry, want resource) item {
	e.sent, e.waiting = want.version(), false
	return item{name: want.wire.Name, version: e.sent, entry: e}
}

// resendAssignments ends the warming of clusters in a push. A new cluster's
// assignment is asked for; for one that is asked for already Envoy stays silent.
func (s *stream) resendAssignments(p push) {
	for _, i := range p.items {
		name := s.pool.kinds[clusters].resources[i.name].assignment
		if e := s.kinds[assignments].entries[name]; e != nil && e.subscribed {
			e.sent = ""
			s.review(assignments, name)
		}
	}
}

// removals is a response that removes what the edge should no longer have.
func (s *stream) removals(k kind, now time.Time) *discovery.DeltaDiscoveryResponse {
	if !s.pool.kinds[k].ready || len(s.kinds[k].inflight) >= window {
		return nil
	}
	p := push{at: now}
	removed := s.dropStale(k, &p)
	if len(removed) == 0 {
		return nil
	}
	r := s.response(k, p, nil)
	r.RemovedResources = removed
	return r
}

func (s *stream) dropStale(k kind, p *push) []string {
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(s.kinds[k].stale)) {
		if e := s.kinds[k].entries[name]; e.sent != "" {
			e.sent = ""
			removed = append(removed, name)
			p.items = append(p.items, item{name: name, entry: e})
		}
	}
	return removed
}

// absences tells which names asked for do not exist; when one comes to exist it
// is sent.
func (s *stream) absences(now time.Time) *discovery.DeltaDiscoveryResponse {
	for k := range s.kinds {
		if sub := &s.kinds[k]; len(sub.absent) > 0 && len(sub.inflight) < window {
			owed := sub.owed
			r := s.response(kind(k), push{at: now}, nil)
			r.RemovedResources, sub.owed = slices.Sorted(maps.Keys(sub.absent)), owed
			clear(sub.absent)
			return r
		}
	}
	return nil
}

func (s *stream) response(k kind, p push, list []*discovery.Resource) *discovery.DeltaDiscoveryResponse {
	s.nonce++
	nonce := strconv.FormatUint(s.nonce, 10)
	sub := &s.kinds[k]
	sub.owed = false
	sub.inflight[nonce] = p
	return &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: strconv.FormatUint(s.pool.generation, 10),
		TypeUrl:           typeURLs[k], Nonce: nonce, Resources: list,
	}
}
