package delta

import (
	"cmp"
	"maps"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Stream is the state of one edge's ADS stream. Its size is that of what the edge
// has subscribed to.
type Stream struct {
	// ID is the caller's number of the Stream; Snapshot.Overrides uses it.
	ID uint64

	pool  *Pool
	node  string
	kinds [kinds]subscription
	nonce uint64
	// generation is the last snapshot that the edge applied completely, answered
	// the last one of which it ACKed or NACKed everything.
	generation, answered uint64
	// overrides are what the edge gets instead of what its pool gets.
	overrides map[resourceKey]encoded
	// nacked are entries that may have a NACK; no other entry has one.
	nacked map[resourceKey]struct{}
	// reconnected says that the edge's process had resources before this stream.
	reconnected bool

	warmTimeout time.Duration
	// warmWaitSince is when routes or listeners began to wait for warming clusters.
	warmWaitSince time.Time
	// assignmentsFirst alternates, so that neither assignments nor the rest starve.
	assignmentsFirst bool
}

// subscription is what a Stream has of one kind.
type subscription struct {
	started, wildcard bool
	// mustRespond says that a response must be sent even if it is empty: Envoy
	// waits for the first response to a wildcard subscription.
	mustRespond bool
	entries     map[string]*entry
	queue       queue
	// unknownNames were subscribed to and do not exist. The edge has yet to be
	// answered that they do not.
	unknownNames map[string]struct{}
	// notApplied are desired resources that the edge has not applied (always empty
	// for assignments). toRemove are those that it has and should not have (always
	// empty for kinds subscribed to by name, which Envoy drops by itself).
	notApplied, toRemove map[string]struct{}
	// removals are those of toRemove that were not sent yet. untracked are names
	// beyond what a Stream remembers, which the edge said that it has: they are
	// sent once as removed, and forgotten. Their size is bounded, too.
	removals  queue
	untracked []string
	inFlight  map[string]response
	// unanswered counts the resources of the responses in inFlight.
	unanswered int
}

// entry is one resource on one edge. A version is empty where there is none.
type entry struct {
	// subscribed: by name. unanswered: and nothing was sent yet.
	subscribed, unanswered bool
	// sent is the last version that was sent, applied the one in force on the edge,
	// appliedIn a snapshot that had it: that of the response. 0: none is known.
	sent, applied string
	appliedIn     uint64
	// nack is the edge's last one.
	nack Nack
	// warmTimedOut is the version for which routes no longer wait.
	warmTimedOut string
	// sendAlone: it goes into a response of its own, to find out whether it was
	// the bad one of a NACKed batch.
	sendAlone bool
}

// response is one that the edge has not answered yet.
type response struct {
	sentAt   time.Time
	snapshot uint64 // of which it is a part
	items    []item
}

// size counts an empty response as one resource.
func (r response) size() int { return max(1, len(r.items)) }

// item is a resource in a response. A removal has no version.
type item struct {
	name, version string
	entry         *entry
}

// maxInFlight bounds the unanswered resources of a kind. An edge that is so far
// behind is stuck, and gets the newest of everything once it reads again.
const maxInFlight = 1024

// maySend says whether a response of a kind may be sent now. Of clusters and
// listeners all may be unanswered twice over: Envoy ACKs clusters once all are warm.
func (s *Stream) maySend(k Kind) bool {
	limit, desired := maxInFlight, s.pool.kinds[k]
	if k == clusters || k == listeners {
		limit += 2 * len(desired.resources)
	}
	return desired.ready && s.kinds[k].unanswered < limit
}

// Open adds a stream of an edge. node is the label that the edge gives itself.
// Routes and listeners wait at most warmTimeout for clusters to warm.
func (p *Pool) Open(node string, warmTimeout time.Duration) *Stream {
	s := &Stream{pool: p, node: node, warmTimeout: warmTimeout, nacked: map[resourceKey]struct{}{}}
	for k := range s.kinds {
		s.kinds[k] = subscription{
			entries: map[string]*entry{}, queue: newQueue(), unknownNames: map[string]struct{}{},
			notApplied: map[string]struct{}{}, toRemove: map[string]struct{}{}, removals: newQueue(), inFlight: map[string]response{},
		}
	}
	p.streams[s] = struct{}{}
	return s
}

// Started says whether the edge has sent its first request of a kind.
func (s *Stream) Started(k Kind) bool { return s.kinds[k].started }

// Known are those of an edge's versions whose resources exist: what the rest of
// the hub may remember.
func (s *Stream) Known(k Kind, versions map[string]string) map[string]string {
	exist := s.pool.kinds[k].resources
	known := make(map[string]string, min(len(versions), len(exist)))
	for name, version := range versions {
		if _, exists := exist[name]; exists && len(version) <= maxVersionLength {
			known[name] = version
		}
	}
	return known
}

// Progress is what the edge has done with its pool's snapshots.
func (s *Stream) Progress() Progress {
	progress := Progress{Generation: s.generation, Answered: s.answered}
	for key, nack := range s.currentNacks() {
		if _, desired := s.desired(key.kind, key.name); desired && !key.kind.IsRuntime() {
			progress.Nacks = append(progress.Nacks, nack)
		}
	}
	slices.SortFunc(progress.Nacks, func(a, b Nack) int { return cmp.Compare(a.TypeURL+a.Name, b.TypeURL+b.Name) })
	return progress
}

// reconcile compares what the edge has of one resource with what it should have,
// and queues the difference. It is called after every change of either.
func (s *Stream) reconcile(k Kind, name string) {
	sub := &s.kinds[k]
	if !sub.started || !s.pool.kinds[k].ready {
		return
	}
	want, desired := s.desired(k, name)
	e := sub.entries[name]
	if e == nil && desired && sub.wildcard {
		e = &entry{}
		sub.entries[name] = e
	}
	if k != assignments {
		setMember(sub.notApplied, name, desired && (e == nil || e.applied != want.version()))
	}
	if e == nil {
		return
	}
	remove := k.wildcard() && !desired && (e.sent != "" || e.applied != "")
	setMember(sub.toRemove, name, remove)
	if remove && e.sent != "" {
		sub.removals.add(name)
	}
	switch {
	case desired && sub.due(e, want.version()):
		sub.queue.add(name)
	case !desired && e.unanswered && k != assignments:
		e.unanswered = false
		sub.unknownNames[name] = struct{}{}
	case !desired && !remove && !e.subscribed:
		delete(sub.entries, name)
	}
}

// desired is the resource that the edge should have under a name.
func (s *Stream) desired(k Kind, name string) (encoded, bool) {
	if own, ok := s.overrides[resourceKey{k, name}]; ok {
		return own, true
	}
	return s.pool.desired(k, name)
}

// setOverrides replaces what the edge gets instead of what its pool gets.
func (s *Stream) setOverrides(o Override) {
	last, next := s.overrides, map[resourceKey]encoded{}
	for k, list := range map[Kind][]Resource{listeners: o.Listeners, routes: o.Routes} {
		for _, r := range list {
			next[resourceKey{k, r.Name}] = encode(r)
		}
	}
	s.overrides = next
	for key := range last {
		if _, still := next[key]; !still {
			s.reconcile(key.kind, key.name)
		}
	}
	for key, own := range next {
		if !last[key].equal(own) {
			s.reconcile(key.kind, key.name)
		}
	}
}

func setMember(set map[string]struct{}, name string, in bool) {
	if in {
		set[name] = struct{}{}
	} else {
		delete(set, name)
	}
}

// due says whether the edge should be sent this version.
func (sub *subscription) due(e *entry, version string) bool {
	return (sub.wildcard || e.subscribed) && e.sent != version && e.nack.Version != version
}

func (s *Stream) reconcileAll(k Kind) {
	names := slices.Collect(maps.Keys(s.kinds[k].entries))
	for name := range s.pool.kinds[k].resources {
		if s.kinds[k].entries[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s.reconcile(k, name)
	}
}

// subscribe processes what a request subscribes to and unsubscribes from, and in
// the first request of a kind the versions that the edge has.
func (s *Stream) subscribe(k Kind, r *discovery.DeltaDiscoveryRequest) {
	sub := &s.kinds[k]
	first := !sub.started
	wasWildcard := sub.wildcard
	if first {
		sub.started = true
		s.takeOverVersions(k, r.InitialResourceVersions)
		if k.wildcard() && len(r.ResourceNamesSubscribe) == 0 {
			sub.wildcard, sub.mustRespond = true, true
		}
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			sub.wildcard, sub.mustRespond = true, true
			continue
		}
		e := s.entryOf(k, name)
		if e == nil {
			continue
		}
		e.subscribed = true
		// A repeated subscription must be answered, even if it was before.
		if _, has := r.InitialResourceVersions[name]; !first || !has {
			e.sent, e.unanswered = "", true
		}
	}
	for _, name := range r.ResourceNamesUnsubscribe {
		s.unsubscribe(k, name)
	}
	if first {
		s.takeOverNacks(k)
	}
	if first || sub.wildcard && !wasWildcard { // once, however often the request says "*"
		s.reconcileAll(k)
		return
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name != "*" {
			s.reconcile(k, name)
		}
	}
}

// takeOverVersions notes what the edge had before this stream.
func (s *Stream) takeOverVersions(k Kind, versions map[string]string) {
	left := s.pool.untrackedSize()
	for name, version := range versions {
		e := s.entryOf(k, name)
		switch {
		case e == nil && k.wildcard() && len(name) <= min(left, maxNameLength):
			s.kinds[k].untracked = append(s.kinds[k].untracked, name)
			left -= len(name) + nameSize
		case e != nil:
			version = s.shortVersion(k, name, version)
			e.sent, e.applied = version, version
			if version == s.pool.kinds[k].resources[name].version() {
				e.appliedIn = s.pool.generation
			}
		}
	}
}

// shortVersion is a version that an edge had, or, if it is long and not the current
// one, a stand-in that equals no version.
func (s *Stream) shortVersion(k Kind, name, version string) string {
	if current := s.pool.kinds[k].resources[name].version(); version == current {
		return current // which costs nothing to remember
	}
	if len(version) > maxOldVersionLength {
		return "?"
	}
	return version
}

// entryOf returns the entry of a name and makes it if need be. It is nil for a
// name that is not remembered: names that exist always are, others up to a number.
func (s *Stream) entryOf(k Kind, name string) *entry {
	sub := &s.kinds[k]
	e := sub.entries[name]
	if e != nil {
		return e
	}
	if _, exists := s.pool.kinds[k].resources[name]; !exists && (len(name) > maxNameLength || s.names() >= s.pool.names()+s.pool.spareNames()) {
		return nil
	}
	e = &entry{}
	sub.entries[name] = e
	return e
}

// names is how many names the Stream remembers.
func (s *Stream) names() (n int) {
	for k := range s.kinds {
		n += len(s.kinds[k].entries)
	}
	return n
}

func (s *Stream) unsubscribe(k Kind, name string) {
	sub := &s.kinds[k]
	if name == "*" {
		sub.wildcard = false
		return
	}
	if sub.wildcard {
		return
	}
	delete(sub.entries, name)
	delete(sub.unknownNames, name)
	delete(sub.toRemove, name)
	s.reconcile(k, name)
}

// appliedAll says whether the edge has applied everything of a kind.
func (s *Stream) appliedAll(k Kind) bool {
	sub := &s.kinds[k]
	if !sub.started {
		return len(s.pool.kinds[k].resources) == 0
	}
	// Clusters to be removed do not count: nothing uses them.
	return !sub.mustRespond && len(sub.notApplied) == 0 && (k == clusters || len(sub.toRemove) == 0)
}

// answeredAll says whether the edge has applied or NACKed everything of a kind.
func (s *Stream) answeredAll(k Kind) bool {
	sub := &s.kinds[k]
	if !sub.started || sub.mustRespond || k != clusters && len(sub.toRemove) > 0 {
		return false
	}
	for name := range sub.notApplied {
		e := sub.entries[name]
		if want, _ := s.desired(k, name); e == nil || e.nack.Version != want.version() {
			return false
		}
	}
	return true
}

// updateProgress notes whether the edge has applied, or at least answered, the
// whole snapshot, and returns whether that is new.
func (s *Stream) updateProgress() bool {
	current := s.pool.generation
	if !s.pool.kinds[clusters].ready || s.generation == current || !s.kinds[clusters].started || !s.kinds[listeners].started {
		return false
	}
	applied, answered := true, true
	for _, k := range []Kind{clusters, secrets, listeners, routes} {
		if !s.appliedAll(k) {
			applied = false
			answered = answered && s.answeredAll(k)
		}
	}
	changed := applied || answered && s.answered != current
	if applied {
		s.generation = current
	}
	if answered {
		s.answered = current
	}
	return changed
}
