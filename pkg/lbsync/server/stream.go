package server

import (
	"maps"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// stream is what the server knows about one edge, guarded by its pool's mutex.
// Its size is that of what the edge has asked for.
type stream struct {
	edge Edge
	pool *pool
	// kick (one place) wakes the goroutine that sends.
	kick chan struct{}

	kinds [kinds]subscription
	nonce uint64
	// generation is the last snapshot that the edge applied wholly.
	generation uint64
	// answered is the last snapshot of which it applied or refused everything.
	answered uint64
	// refusing are entries that may have a refusal; nothing else has one.
	refusing map[ref]struct{}
	// resumed says that the edge's process held resources before this stream.
	resumed bool

	warmTimeout time.Duration
	// waitsSince is when routes or listeners began to wait for warm clusters;
	// assignmentsFirst alternates, so that neither stream of changes starves.
	waitsSince       time.Time
	assignmentsFirst bool
}

// subscription is one kind's part of a stream.
type subscription struct {
	started, wildcard bool
	// owed says that even an empty answer must be given: Envoy waits for the
	// first one to a wildcard.
	owed    bool
	entries map[string]*entry
	queue   queue
	// absent are names asked for that do not exist, still to be told so.
	absent map[string]struct{}
	// missing are wanted resources that the edge has not applied (unless
	// assignments), stale are those that it has and should not (unless kinds
	// asked for by name, which Envoy drops by itself).
	missing, stale map[string]struct{}
	inflight       map[string]push
}

// entry is one resource on one edge. Versions are empty where there is none.
type entry struct {
	// subscribed: asked for by name. waiting: and nothing was answered yet.
	subscribed, waiting bool
	// sent is the last version that was sent, applied the one that it holds.
	sent, applied string
	// refused is its last NACK; late the version that warming took too long for.
	refused Nack
	late    string
	// alone: it goes into a response of its own, to find out whether it was the
	// one that spoiled its batch.
	alone bool
}

// push is a response that was not answered yet.
type push struct {
	at    time.Time
	items []item
}

// item is a resource in a push; without a version it is a removal.
type item struct {
	name, version string
	entry         *entry
}

// window bounds the unanswered responses of a kind: an edge that far behind is
// stuck, and gets the newest of everything once it moves.
const window = 1024

// queue is a list of names, first in first out, each at most once.
type queue struct {
	names []string
	head  int
	in    map[string]struct{}
}

func (q *queue) empty() bool { return q.head == len(q.names) }

func (q *queue) add(name string) {
	if _, queued := q.in[name]; queued {
		return
	}
	if q.head > len(q.names)/2 { // or a queue that is never empty would grow
		q.names = q.names[:copy(q.names, q.names[q.head:])]
		q.head = 0
	}
	q.in[name] = struct{}{}
	q.names = append(q.names, name)
}

func (q *queue) pop() string {
	name := q.names[q.head]
	q.head++
	delete(q.in, name)
	return name
}

func newStream(edge Edge, p *pool, warmTimeout time.Duration) *stream {
	s := &stream{edge: edge, pool: p, kick: make(chan struct{}, 1), warmTimeout: warmTimeout, refusing: map[ref]struct{}{}}
	for k := range s.kinds {
		s.kinds[k] = subscription{
			entries: map[string]*entry{}, queue: queue{in: map[string]struct{}{}}, absent: map[string]struct{}{},
			missing: map[string]struct{}{}, stale: map[string]struct{}{}, inflight: map[string]push{},
		}
	}
	return s
}

func (s *stream) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// review compares what the edge has of one resource with what it should have,
// and queues the difference. It is called after every change of either.
func (s *stream) review(k kind, name string) {
	sub, should := &s.kinds[k], &s.pool.kinds[k]
	if !sub.started || !should.ready {
		return
	}
	want, wanted := s.pool.wanted(k, name)
	e := sub.entries[name]
	if e == nil && wanted && sub.wildcard {
		e = &entry{}
		sub.entries[name] = e
	}
	if k != assignments {
		mark(sub.missing, name, wanted && (e == nil || e.applied != want.version()))
	}
	if e == nil {
		return
	}
	stale := k.all() && !wanted && (e.sent != "" || e.applied != "")
	mark(sub.stale, name, stale)
	switch {
	case wanted && sub.due(e, want.version()):
		sub.queue.add(name)
	case !wanted && e.waiting && k != assignments:
		e.waiting = false
		sub.absent[name] = struct{}{}
	case !wanted && !stale && !e.subscribed:
		delete(sub.entries, name)
	}
}

func mark(set map[string]struct{}, name string, in bool) {
	if in {
		set[name] = struct{}{}
	} else {
		delete(set, name)
	}
}

// due says whether the edge should be sent this version.
func (sub *subscription) due(e *entry, version string) bool {
	return (sub.wildcard || e.subscribed) && e.sent != version && e.refused.Version != version
}

func (s *stream) reviewAll(k kind) {
	names := slices.Collect(maps.Keys(s.kinds[k].entries))
	for name := range s.pool.kinds[k].resources {
		if s.kinds[k].entries[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s.review(k, name)
	}
}

// subscribe takes in what a request asks for and no longer asks for. On the
// first one of a kind it also takes in what the edge holds.
func (s *stream) subscribe(k kind, r *discovery.DeltaDiscoveryRequest) {
	sub := &s.kinds[k]
	first := !sub.started
	if first {
		sub.started = true
		for name, version := range r.InitialResourceVersions {
			sub.entries[name] = &entry{sent: version, applied: version}
		}
		if k.all() && len(r.ResourceNamesSubscribe) == 0 {
			sub.wildcard, sub.owed = true, true
		}
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			sub.wildcard, sub.owed = true, true
			continue
		}
		e := sub.entries[name]
		if e == nil {
			e = &entry{}
			sub.entries[name] = e
		}
		e.subscribed = true
		// Who asks again wants an answer, also where it has been given.
		if _, held := r.InitialResourceVersions[name]; !first || !held {
			e.sent, e.waiting = "", true
		}
	}
	for _, name := range r.ResourceNamesUnsubscribe {
		if name == "*" {
			sub.wildcard = false
			continue
		}
		if sub.wildcard {
			continue
		}
		delete(sub.entries, name)
		delete(sub.absent, name)
		delete(sub.stale, name)
		s.review(k, name)
	}
	if first {
		s.remember(k)
		s.reviewAll(k)
		return
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			s.reviewAll(k)
			continue
		}
		s.review(k, name)
	}
}

// remember takes over what the same process refused on an earlier stream.
func (s *stream) remember(k kind) {
	sub := &s.kinds[k]
	for _, e := range sub.entries {
		if e.applied != "" {
			s.resumed = true
			break
		}
	}
	if !s.resumed {
		return
	}
	for at, refusal := range s.pool.refusedBy(s) {
		if at.kind != k {
			continue
		}
		e := sub.entries[at.name]
		if e == nil && sub.wildcard {
			e = &entry{}
			sub.entries[at.name] = e
		}
		if e != nil && e.applied != refusal.Version {
			e.refused = refusal
			s.refusing[at] = struct{}{}
		}
	}
}

// refusals are the resources that the edge refused last time.
func (s *stream) refusals() map[ref]Nack {
	found := map[ref]Nack{}
	for at := range s.refusing {
		if e := s.kinds[at.kind].entries[at.name]; e != nil && e.refused.Version != "" {
			found[at] = e.refused
		} else {
			delete(s.refusing, at)
		}
	}
	return found
}

// has says whether the edge applied all of a kind.
func (s *stream) has(k kind) bool {
	sub := &s.kinds[k]
	if !sub.started {
		return len(s.pool.kinds[k].resources) == 0
	}
	return !sub.owed && len(sub.missing) == 0 && (k == clusters || len(sub.stale) == 0)
}

// settle notes that the edge has the whole snapshot, or has taken or refused all
// of it, and tells whether that is new. Stale clusters do not count: nothing uses
// them.
func (s *stream) settle() bool {
	current := s.pool.generation
	if !s.pool.kinds[clusters].ready || s.generation == current || !s.kinds[clusters].started || !s.kinds[listeners].started {
		return false
	}
	all, answered := true, true
	for _, k := range []kind{clusters, secrets, listeners, routes, scopes} {
		if !s.has(k) {
			all = false
			answered = answered && s.hasAnswered(k)
		}
	}
	news := all || answered && s.answered != current
	if all {
		s.generation = current
	}
	if answered {
		s.answered = current
	}
	return news
}

// hasAnswered says whether the edge applied or refused all of a kind.
func (s *stream) hasAnswered(k kind) bool {
	sub := &s.kinds[k]
	if !sub.started || sub.owed || k != clusters && len(sub.stale) > 0 {
		return false
	}
	for name := range sub.missing {
		e := sub.entries[name]
		if e == nil || e.refused.Version != s.pool.kinds[k].resources[name].version() {
			return false
		}
	}
	return true
}

// recalled are the refusals of a kind that a new stream took over and that are
// about what the edge should have now.
func (s *stream) recalled(k kind) []Nack {
	var found []Nack
	for name, e := range s.kinds[k].entries {
		if v := e.refused.Version; v != "" && s.pool.kinds[k].resources[name].version() == v {
			found = append(found, e.refused)
		}
	}
	return found
}
