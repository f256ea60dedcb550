package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// world is all that the Loop knows. It has no lock, clock or goroutine of its own: time is an argument, and what its
// methods return is what is to be published.
type world struct {
	hub     Hub
	log     logr.Logger
	store   *store
	objects map[string]*v1alpha1.MemberCluster
	members map[fleet.ClusterName]*member
	pools   map[string]*v1alpha1.EdgePool
	regions []regionView // of all pools, by name

	assignments map[string]*assigned
	flows       map[fleet.Backend]*flow
	policies    []model.ImportPolicy         // in force, whether or not somebody uses their imports
	retired     map[fleet.ObjectName]retired // policies that are in force no more
	edges       map[string]*connected
}

// retired is a policy that is in force no more, whose verdict is still to be taken back.
type retired struct {
	generation int64
	since      time.Time // zero: not said yet
}

// assigned is one assignment and what each region last got of it.
type assigned struct {
	model.Assignment
	sent map[string]sent // by region
}

// all are the backends that an assignment depends on.
func (a *assigned) all() []model.WeightedBackend {
	if len(a.Fallback) == 0 {
		return a.Backends
	}
	return slices.Concat(a.Backends, a.Fallback)
}

// sent is what was last published: its version, and the number of addresses that two of its backends have in common.
type sent struct {
	resource envoy.Resource
	overlaps int
}

// connected is one Envoy; streams counts its open configuration streams, of which a dead one may linger.
type connected struct {
	Edge
	streams int
	gone    time.Time // when the last stream ended
	held    bool      // it has said what it holds
}

// dirty is what a change touches.
type dirty struct {
	assignments map[string]bool
	flows       map[*flow]bool
}

func newDirty() dirty { return dirty{map[string]bool{}, map[*flow]bool{}} }

// flow marks a backend's shares for division, and the assignments that use it.
func (d dirty) flow(f *flow) {
	if f == nil {
		return
	}
	d.flows[f] = true
	for key := range f.users {
		d.assignments[key] = true
	}
}

func newWorld(hub Hub, log logr.Logger) *world {
	w := &world{hub: hub, log: log, store: newStore(), objects: map[string]*v1alpha1.MemberCluster{}, pools: map[string]*v1alpha1.EdgePool{},
		assignments: map[string]*assigned{}, flows: map[fleet.Backend]*flow{}, edges: map[string]*connected{},
		retired: map[fleet.ObjectName]retired{}}
	w.readMembers()
	return w
}

// apply takes in what informers and edges said, and marks what it touches.
func (w *world) apply(e events, d dirty) {
	for key, s := range e.slices {
		for _, part := range w.store.set(key, s) {
			f := w.flows[part.backend]
			d.flow(f)
			w.retry(f, part.cluster)
		}
	}
	for _, cluster := range w.cameBack(e.members) {
		for _, f := range w.flows {
			if w.retry(f, cluster) {
				d.flow(f)
			}
		}
	}
	if len(e.members) > 0 && w.applyMembers(e.members) {
		for _, f := range w.flows {
			d.flow(f)
		}
	}
	if len(e.pools) > 0 && w.applyPools(e.pools) {
		for _, f := range w.flows {
			d.flow(f)
		}
		for key := range w.assignments {
			d.assignments[key] = true
		}
	}
	for _, h := range e.loads {
		w.hear(h)
	}
}

// retry ends the holding out of a member: its agent is there again, or its pods are new.
func (w *world) retry(f *flow, cluster fleet.ClusterName) (changed bool) {
	if f == nil {
		return false
	}
	for _, r := range f.regions {
		changed = r.health.Readmit(cluster) || changed
	}
	return changed
}

// cameBack lists the members that are heard of again after a silence: where few requests try them, that is known long
// before one of these does.
func (w *world) cameBack(changed map[string]*v1alpha1.MemberCluster) (names []fleet.ClusterName) {
	for name, m := range changed {
		old := w.objects[name]
		if old != nil && m != nil && meta.IsStatusConditionFalse(old.Status.Conditions, condition.MemberReachableType) &&
			meta.IsStatusConditionTrue(m.Status.Conditions, condition.MemberReachableType) {
			names = append(names, fleet.ClusterName(name))
		}
	}
	return names
}

// applyMembers says whether anything that matters here changed.
func (w *world) applyMembers(changed map[string]*v1alpha1.MemberCluster) bool {
	matters := false
	for name, m := range changed {
		matters = matters || !sameMember(w.objects[name], m)
		if m == nil {
			delete(w.objects, name)
		} else {
			w.objects[name] = m
		}
	}
	if matters {
		w.readMembers()
	}
	return matters
}

func (w *world) applyPools(changed map[string]*v1alpha1.EdgePool) bool {
	matters := false
	for name, p := range changed {
		old := w.pools[name]
		matters = matters || (old == nil) != (p == nil) || p != nil && (old.UID != p.UID || !equality.Semantic.DeepEqual(old.Spec, p.Spec))
		if p == nil {
			delete(w.pools, name)
		} else {
			w.pools[name] = p
		}
	}
	if matters {
		w.readRegions()
	}
	return matters
}

// readRegions lists the regions of all pools. Where pools of one region name different nearest ones, one of
// them counts (v1alpha1.NearestOf) and the others say so: a region has one order of overflow.
func (w *world) readRegions() {
	w.regions = nil
	for _, p := range w.pools {
		if w.hasRegion(p.Spec.Region) {
			continue
		}
		view := regionView{name: p.Spec.Region}
		if decides := v1alpha1.NearestOf(maps.Values(w.pools), view.name); decides != nil {
			view.nearest = decides.Spec.Nearest
		}
		w.regions = append(w.regions, view)
	}
	slices.SortFunc(w.regions, func(a, b regionView) int { return cmp.Compare(a.name, b.name) })
	w.readEdges()
	for _, a := range w.assignments {
		maps.DeleteFunc(a.sent, func(region string, _ sent) bool { return !w.hasRegion(region) })
	}
}

func (w *world) hasRegion(name string) bool {
	return slices.ContainsFunc(w.regions, func(r regionView) bool { return r.name == name })
}

// readEdges tells each region which edges are connected, sorted.
func (w *world) readEdges() {
	for i := range w.regions {
		w.regions[i].edges = nil
		for key, e := range w.edges {
			if e.Region == w.regions[i].name && e.streams > 0 {
				w.regions[i].edges = append(w.regions[i].edges, key)
			}
		}
		slices.Sort(w.regions[i].edges)
	}
}

// setAssignments takes in what Build names, and gives the keys that are gone.
func (w *world) setAssignments(assignments []model.Assignment, policies []model.ImportPolicy, d dirty) (removed []string) {
	named := make(map[string]bool, len(assignments))
	for _, a := range assignments {
		named[a.Key] = true
		if old := w.assignments[a.Key]; old != nil {
			if sameAssignment(old.Assignment, a) {
				continue
			}
			w.unuse(old)
			old.Assignment = a
			w.use(old, d)
			continue
		}
		w.assignments[a.Key] = &assigned{Assignment: a, sent: map[string]sent{}}
		w.use(w.assignments[a.Key], d)
	}
	for key, a := range w.assignments {
		if !named[key] {
			w.unuse(a)
			delete(w.assignments, key)
			removed = append(removed, key)
		}
	}
	w.setPolicies(policies, d)
	maps.DeleteFunc(w.flows, func(_ fleet.Backend, f *flow) bool { return len(f.users) == 0 })
	slices.Sort(removed)
	return removed
}

func (w *world) use(a *assigned, d dirty) {
	d.assignments[a.Key] = true
	for _, b := range a.all() {
		f := w.flows[b.Backend]
		if f == nil {
			f = newFlow(b.Backend)
			w.flows[b.Backend] = f
		}
		d.flows[f] = true // which clusters count depends on the assignment
		f.users[a.Key] = true
	}
}

func (w *world) unuse(a *assigned) {
	for _, b := range a.all() {
		if f := w.flows[b.Backend]; f != nil {
			delete(f.users, a.Key)
		}
	}
}

func (w *world) setPolicies(policies []model.ImportPolicy, d dirty) {
	for _, p := range w.policies {
		w.retired[p.Policy] = retired{generation: p.Generation}
	}
	for _, p := range policies {
		delete(w.retired, p.Policy)
	}
	w.policies = policies
	named := map[fleet.Backend]bool{}
	for _, p := range policies {
		named[p.Backend] = true
		if f := w.flows[p.Backend]; f != nil && f.policy != p {
			f.policy = p
			f.members = nil // divide anew, whatever it is worth
			d.flow(f)
		}
	}
	for backend, f := range w.flows {
		if none := newFlow(backend).policy; !named[backend] && f.policy != none {
			f.policy = none
			f.members = nil
			d.flow(f)
		}
	}
}

// sameAssignment compares what endpoints depend on; protocol, timeout and health check belong to the cluster.
func sameAssignment(a, b model.Assignment) bool {
	same := func(x, y model.WeightedBackend) bool {
		return x.Backend == y.Backend && x.Port == y.Port && x.PortName == y.PortName && x.Weight == y.Weight && x.Unchecked == y.Unchecked &&
			(x.Clusters == nil) == (y.Clusters == nil) && slices.Equal(x.Clusters, y.Clusters)
	}
	return a.Route == b.Route && slices.EqualFunc(a.Backends, b.Backends, same) && slices.EqualFunc(a.Fallback, b.Fallback, same)
}

// divide brings the shares of flows up to date and marks the assignments of those that changed.
func (w *world) divide(d dirty, now time.Time) {
	for f := range d.flows {
		if f.divide(division{now: now, members: w.capacities(f.backend), regions: w.regions}) {
			d.flow(f)
		}
	}
}

// capacities lists the members that have a part of a backend, by name.
func (w *world) capacities(backend fleet.Backend) []traffic.Capacity {
	var out []traffic.Capacity
	for _, cluster := range w.store.clusters(backend) {
		m := w.members[cluster]
		if m == nil || !w.wanted(backend, cluster) {
			continue
		}
		out = append(out, traffic.Capacity{Cluster: cluster, Region: m.place.Region, Ready: w.store.parts[backend][cluster].ready(m.admit), Scaler: m.scaler})
	}
	return out
}

// wanted says whether an assignment takes a cluster's part of a backend: a member that does not export the service, or
// not its port, has no share, whatever slices it pushed.
func (w *world) wanted(backend fleet.Backend, cluster fleet.ClusterName) bool {
	f := w.flows[backend]
	if f == nil {
		return true
	}
	for key := range f.users {
		for _, b := range w.assignments[key].all() {
			if b.Backend == backend && (b.Clusters == nil || slices.Contains(b.Clusters, cluster)) {
				return true
			}
		}
	}
	return false
}

// input is all that one assignment for one region depends on.
func (w *world) input(a *assigned, region string) lbsync.AssignInput {
	in := lbsync.AssignInput{Assignment: a.Assignment, Region: region, Parts: w.partsOf}
	for _, b := range a.all() {
		if f := w.flows[b.Backend]; f != nil && f.shares != nil && b.Backend.Kind == fleet.Import {
			in.Shares = append(in.Shares, traffic.BackendShares{Backend: b.Backend, RegionShares: f.sharesOf(region)})
		}
	}
	return in
}

func (w *world) partsOf(b model.WeightedBackend) []lbsync.Part {
	var out []lbsync.Part
	for _, cluster := range w.store.clusters(b.Backend) {
		m := w.members[cluster]
		if m == nil {
			continue
		}
		out = append(out, lbsync.Part{Backend: b.Backend, Cluster: cluster, Place: m.place,
			Endpoints: w.store.parts[b.Backend][cluster].endpoints(m, b.PortName)})
	}
	return out
}
