package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// forgetEdgeAfter is how long an edge that disconnected keeps its part of the demand: it may only have lost its stream, and
// Envoy waits for at most 30 s before it tries again.
const forgetEdgeAfter = 30 * time.Second

// Hub is the hub's own cluster, for Services of it that routes name.
type Hub struct {
	Place fleet.Place
	// Replica is the name of this replica; empty: it is the only one.
	Replica string
	// CIDRs of its pods and Services: a member may announce nothing in them, and nothing outside of them is an endpoint
	// of a Service of the hub.
	CIDRs []netip.Prefix
}

// Edge is one connected Envoy. Region and Pool are proven by its certificate, Node is the name that it gives itself, and
// Source the address that it connects from.
type Edge struct{ Pool, Region, Node, Source string }

// Key has the Source, so that who takes another edge's name does not speak for it.
func (e Edge) Key() string { return e.Pool + "/" + e.Node + "@" + e.Source }

// Changes are the changes since the last pass; a nil value is a deletion. Only the last version of an object counts,
// every load report does.
type Changes struct {
	Slices  map[SliceKey]*Slice
	Members map[string]*v1alpha1.MemberCluster
	Pools   map[string]*v1alpha1.EdgePool
	Loads   []LoadReport
	// Words are what other replicas said, in order.
	Words []Word
	// LoadsSize is how many assignments and localities Loads and Words have, and Reports how many reports they are.
	LoadsSize, Reports int
}

// NewChanges makes Changes without any change.
func NewChanges() Changes {
	return Changes{Slices: map[SliceKey]*Slice{}, Members: map[string]*v1alpha1.MemberCluster{}, Pools: map[string]*v1alpha1.EdgePool{}}
}

// Empty says whether there is no change.
func (c Changes) Empty() bool {
	return len(c.Slices)+len(c.Members)+len(c.Pools)+len(c.Loads)+len(c.Words) == 0
}

// State is all that the loop knows of the fleet. Make it with New.
type State struct {
	hub     Hub
	store   *store
	objects map[string]*v1alpha1.MemberCluster
	members map[fleet.ClusterName]*member
	drained map[fleet.ClusterName]drainStep // of members that are drained, or drain
	pools   map[string]*v1alpha1.EdgePool
	regions []region // of all pools, by name

	assignments     map[string]*model.Assignment
	backends        map[fleet.Backend]*backendState
	copies          map[string]*copies                  // by namespace of the routes
	policies        []model.ImportPolicy                // in force, whether or not a route uses their imports
	removedPolicies map[fleet.ObjectName]*removedPolicy // no longer in force
	edges           map[string]*edgeState
	learning        map[string]*learning // by region
	ended           healthEvents         // of backends that are no longer in use, since the last Apply
	dirty           dirty                // since the last Update
	replicas        replicas
}

// region is what the edges of one region have in common.
type region struct {
	name    string
	nearest []string
	edges   []string // connected, sorted
}

// edgeState is one Envoy; streams counts its open configuration streams, of which a dead one may linger.
type edgeState struct {
	Edge
	streams int
	// replicas are the others that it is connected to, as they said last, with the number of its last report there.
	replicas  map[string]int64
	connected bool // here, or to a replica that is heard
	// awaySince is when it last connected or ceased to be connected. Zero: it is counted as it reports.
	awaySince        time.Time
	reportedSince    time.Time // its first report
	versionsReported bool      // Learn was called for it since it connected
	// open are the requests that had not ended when the edge last reported an assignment, by assignment and sub-zone.
	open map[string]map[string]uint64
}

// dirty is what changes touched.
type dirty struct {
	assignments map[string]bool        // to be encoded again
	backends    map[*backendState]bool // whose demand is to be divided again
	namespaces  map[string]bool        // whose copies of endpoints are to be counted again
}

func newDirty() dirty { return dirty{map[string]bool{}, map[*backendState]bool{}, map[string]bool{}} }

// add marks a backend, and the assignments that use it.
func (d dirty) add(b *backendState) {
	if b == nil {
		return
	}
	d.backends[b] = true
	for key := range b.users {
		d.assignments[key] = true
	}
}

// New makes a State of a fleet without members, pools or routes.
func New(hub Hub) *State {
	s := &State{hub: hub, store: newStore(), objects: map[string]*v1alpha1.MemberCluster{}, drained: map[fleet.ClusterName]drainStep{}, pools: map[string]*v1alpha1.EdgePool{},
		assignments: map[string]*model.Assignment{}, copies: map[string]*copies{}, backends: map[fleet.Backend]*backendState{}, edges: map[string]*edgeState{}, learning: map[string]*learning{}, ended: healthEvents{},
		removedPolicies: map[fleet.ObjectName]*removedPolicy{}, dirty: newDirty(), replicas: newReplicas(hub.Replica)}
	s.readMembers()
	return s
}

// Apply takes changes. It returns which members began or ceased to be held out.
func (s *State) Apply(c Changes) []HealthEvent {
	health := s.ended
	s.ended = healthEvents{}
	changed := map[fleet.ClusterName]bool{}
	before := map[partKey]map[netip.AddrPort]bool{}
	for key, slice := range c.Slices {
		for _, part := range s.partsOf(key, slice) {
			if _, seen := before[part]; !seen && s.isHeldOut(part) {
				before[part] = s.readyIn(part)
			}
		}
		for _, part := range s.store.set(key, slice) {
			s.dirty.add(s.backends[part.backend])
			changed[part.cluster] = true
		}
	}
	for cluster := range changed {
		s.admitEndpoints(cluster)
	}
	for part, ready := range before {
		s.noteGained(part, ready)
	}
	for _, cluster := range s.reconnected(c.Members) {
		for _, b := range s.backends {
			if s.readmit(b, cluster, health) {
				s.dirty.add(b)
			}
		}
	}
	if len(c.Members) > 0 && s.applyMembers(c.Members) {
		s.markAllBackends()
	}
	if len(c.Pools) > 0 && s.applyPools(c.Pools) {
		s.markAllBackends()
		for key := range s.assignments {
			s.dirty.assignments[key] = true
		}
	}
	words := c.Words
	for _, r := range c.Loads { // in the order of time, with the words
		for ; len(words) > 0 && !words[0].At.After(r.At); words = words[1:] {
			s.hear(words[0], health)
		}
		if e := s.edges[r.Edge.Key()]; e != nil && e.versionsReported {
			s.observeLoad(e, r, health)
		}
	}
	for _, w := range words {
		s.hear(w, health)
	}
	return health.list()
}

func (s *State) markAllBackends() {
	for _, b := range s.backends {
		s.dirty.add(b)
	}
}

// Update divides the demand of the backends that are due, and lists the assignments whose load assignments may have
// changed since the last Update, sorted.
func (s *State) Update(now time.Time) (changed []string) {
	s.forgetEdges(now)
	s.endLearning(now)
	s.stepDrains(now)
	s.elect(now)
	for _, b := range s.backends {
		if b.resplitDue && now.Sub(b.movedAt) >= moveInterval {
			s.dirty.backends[b] = true
		}
	}
	for b := range s.dirty.backends {
		members := s.capacities(b.backend)
		if b.ready = 0; len(members) > 0 {
			for _, m := range members {
				b.ready += m.Ready
			}
		}
		words, growing := s.wordsOn(b)
		b.pace.Adopt(growing, members, now)
		limited, waits := b.limitPace(members, now)
		if b.resplit(splitContext{now: now, members: limited, regions: s.regions, words: words, ready: s.replicas.ready}) {
			s.dirty.add(b)
		}
		b.resplitDue = b.resplitDue || waits
		s.decide(b, b.pace.Growing(members))
	}
	s.thinCopies()
	changed = s.existing(s.dirty.assignments)
	s.dirty = newDirty()
	return changed
}

// existing lists the keys for which there is an assignment, sorted.
func (s *State) existing(keys map[string]bool) []string {
	var out []string
	for key := range keys {
		if s.assignments[key] != nil {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// partsOf lists the parts that a slice is in before a change and after it.
func (s *State) partsOf(key SliceKey, after *Slice) []partKey {
	var out []partKey
	for _, slice := range []*Slice{s.store.slices[key], after} {
		if slice != nil {
			out = append(out, slice.part)
		}
	}
	return out
}

// isHeldOut says whether a region holds out a cluster's part.
func (s *State) isHeldOut(part partKey) bool {
	b := s.backends[part.backend]
	if b == nil {
		return false
	}
	for _, r := range b.regions {
		if slices.Contains(r.health.HeldOut(), part.cluster) {
			return true
		}
	}
	return false
}

// readyIn is the set of a part's ready endpoints, of all ports.
func (s *State) readyIn(key partKey) map[netip.AddrPort]bool {
	ready, m := map[netip.AddrPort]bool{}, s.members[key.cluster]
	if m == nil {
		return ready
	}
	s.store.parts[key.backend][key.cluster].each(m.admits(key.backend), func(slice *Slice, a address) {
		for _, p := range slice.ports {
			if a.state == fleet.Ready {
				ready[netip.AddrPortFrom(a.ip, uint16(p.number))] = true
			}
		}
	})
	return ready
}

// noteGained tells the regions that hold out a member's part that it has ready endpoints that it did not have.
func (s *State) noteGained(part partKey, before map[netip.AddrPort]bool) {
	for endpoint := range s.readyIn(part) {
		if before[endpoint] {
			continue
		}
		for _, r := range s.backends[part.backend].regions {
			r.health.Gained(part.cluster)
		}
		return
	}
}

// readmit ends the holding out of a member whose agent reconnected.
func (s *State) readmit(b *backendState, cluster fleet.ClusterName, health healthEvents) (changed bool) {
	if b == nil {
		return false
	}
	for name, r := range b.regions {
		if r.health.Readmit(cluster) {
			health[HealthEvent{Region: name, Cluster: cluster}]++
			changed = true
		}
	}
	return changed
}

// reconnected lists the members whose agents renew their Lease again after it had run out. Where few requests probe such a
// member, its agent is back long before one of them is answered. Gossip makes a member unreachable sooner: that moves nothing.
func (s *State) reconnected(changed map[string]*v1alpha1.MemberCluster) (names []fleet.ClusterName) {
	for name, m := range changed {
		old := s.objects[name]
		if old != nil && m != nil && meta.IsStatusConditionFalse(old.Status.Conditions, condition.MemberReachableType) &&
			meta.IsStatusConditionTrue(m.Status.Conditions, condition.MemberReachableType) && leaseRanOut(old, m) {
			names = append(names, fleet.ClusterName(name))
		}
	}
	return names
}

// leaseRanOut says whether a member's agent did not renew its Lease for too long between two states of its status, which has
// seconds alone.
func leaseRanOut(before, after *v1alpha1.MemberCluster) bool {
	last, next := before.Status.LastHeardTime, after.Status.LastHeardTime
	return last == nil || next == nil || next.Sub(last.Time) >= v1alpha1.AgentLeaseDuration-time.Second
}

// applyMembers says whether the members changed in what counts here.
func (s *State) applyMembers(changed map[string]*v1alpha1.MemberCluster) bool {
	relevant := replaceObjects(s.objects, changed, sameMember)
	if relevant {
		s.readMembers()
	}
	return relevant
}

// applyPools says whether the pools changed in what counts here.
func (s *State) applyPools(changed map[string]*v1alpha1.EdgePool) bool {
	relevant := replaceObjects(s.pools, changed, samePool)
	if relevant {
		s.readRegions()
	}
	return relevant
}

// replaceObjects takes over changed objects, where nil is a deleted one, and
// says whether any of them is not the same as before. same gets nil for none.
func replaceObjects[T any](objects, changed map[string]*T, same func(a, b *T) bool) (relevant bool) {
	for name, o := range changed {
		relevant = relevant || !same(objects[name], o)
		if o == nil {
			delete(objects, name)
		} else {
			objects[name] = o
		}
	}
	return relevant
}

func samePool(a, b *v1alpha1.EdgePool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// readRegions lists the regions of all pools. A region has one order of overflow: where pools of one region list
// different nearest regions, v1alpha1.NearestOf decides, and the other pools' status says so.
func (s *State) readRegions() {
	s.regions = nil
	for _, p := range s.pools {
		if slices.ContainsFunc(s.regions, func(r region) bool { return r.name == p.Spec.Region }) {
			continue
		}
		r := region{name: p.Spec.Region}
		if decides := v1alpha1.NearestOf(maps.Values(s.pools), r.name); decides != nil {
			r.nearest = decides.Spec.Nearest
		}
		s.regions = append(s.regions, r)
	}
	slices.SortFunc(s.regions, func(a, b region) int { return cmp.Compare(a.name, b.name) })
	s.readEdges()
}

// Regions lists the regions of all pools, sorted.
func (s *State) Regions() []string {
	out := make([]string, len(s.regions))
	for i, r := range s.regions {
		out[i] = r.name
	}
	return out
}

// HasPool says whether a pool exists.
func (s *State) HasPool(name string) bool { return s.pools[name] != nil }

// Pools lists all pools, sorted by name.
func (s *State) Pools() []lbsync.PoolRef {
	out := make([]lbsync.PoolRef, 0, len(s.pools))
	for _, name := range slices.Sorted(maps.Keys(s.pools)) {
		out = append(out, lbsync.PoolRef{Pool: name, Region: s.pools[name].Spec.Region})
	}
	return out
}

// MemberCluster returns the object of a member; nil where there is none.
func (s *State) MemberCluster(name fleet.ClusterName) *v1alpha1.MemberCluster {
	return s.objects[string(name)]
}
