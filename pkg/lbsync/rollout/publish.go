package rollout

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// Snapshot is everything but load assignments that the edges of one pool get.
type Snapshot struct {
	Pool string
	// Generation counts the snapshots of the pool.
	Generation uint64
	Resources  envoy.Resources
	// Overrides are the listeners and RouteConfigurations that single edges get
	// instead of, or besides, those of Resources. By stream.
	Overrides map[uint64]envoy.Resources
}

// Changes are what Publish asks the caller to hand over, in this order.
type Changes struct {
	// AssignmentsChanged: the Models' assignments or import policies changed.
	// Whoever makes load assignments must know them before a snapshot is handed over.
	AssignmentsChanged bool
	// Assignments are those of all Models, by Key.
	Assignments []model.Assignment
	// Snapshots are of the pools of which something changed.
	Snapshots []Snapshot
	// Withdrawn are the pools that are gone, sorted.
	Withdrawn []string
	// Faults are the parts of all snapshots that Envoy would refuse.
	Faults []envoy.Fault
}

// Publish sets the Model that the edges of these pools should get, and the Model
// of each View of the last Review. It returns what changed.
func (r *Rollout) Publish(m model.Model, views []model.Model, pools []lbsync.PoolRef) Changes {
	r.noteReplaced()
	var changes Changes
	assignments := union(m.Assignments, views)
	changes.AssignmentsChanged = !r.published || !equalLists(r.assignments, assignments, model.Assignment.Equal) || !reflect.DeepEqual(r.model.Imports, m.Imports)
	r.model, r.assignments, changes.Assignments = m, assignments, assignments
	r.viewModels = make(map[string]model.Model, len(views))
	for i, view := range views {
		r.viewModels[r.views[i].key] = view
	}
	for _, pool := range pools {
		r.publishPool(pool, &changes)
	}
	if r.translator.sweep(); len(views) == 0 {
		r.translator.views = modelCache{}
	}
	changes.Withdrawn = r.withdraw(pools)
	if r.gateways.published(&m, r.objects, r.pools) {
		r.served = nil
	}
	if !r.published {
		r.published = true
		r.gateways.restore(r.acceptedBeforeStart)
	}
	clear(r.unpublished)
	r.forgetEarlier()
	return changes
}

// union are the assignments of all Models. Two Models have the same assignment
// under a key, or only one of them has it.
func union(assignments []model.Assignment, views []model.Model) []model.Assignment {
	if len(views) == 0 {
		return assignments
	}
	known := make(map[string]bool, len(assignments))
	for i := range assignments {
		known[assignments[i].Key] = true
	}
	all := assignments
	for _, view := range views {
		for _, a := range view.Assignments {
			if !known[a.Key] {
				known[a.Key] = true
				all = append(slices.Clip(all), a)
			}
		}
	}
	if len(all) > len(assignments) {
		slices.SortFunc(all, func(x, y model.Assignment) int { return strings.Compare(x.Key, y.Key) })
	}
	return all
}

// publishPool translates the Models for one pool.
func (r *Rollout) publishPool(ref lbsync.PoolRef, changes *Changes) {
	p, known := r.pools[ref.Pool], true
	if p == nil {
		p, known = newPool(ref.Pool), false
		r.pools[ref.Pool] = p
		for _, f := range r.restored[ref.Pool] {
			p.refusals(f.Outvoted)[f.Ref] = f
		}
		delete(r.restored, ref.Pool)
	}
	next := Snapshot{Pool: ref.Pool, Generation: p.snapshot.Generation + 1, Resources: r.translator.resources(&r.translator.base, r.model, ref)}
	changes.Faults = append(changes.Faults, next.Resources.Faults...)
	overlays := r.overlays(p, ref, &next.Resources)
	changed, removed := difference(p.snapshot.Resources, next.Resources)
	r.noteVersions(p, changed, next.Generation)
	if p.override(&next, overlays) || !known || removed || len(changed) > 0 {
		p.snapshot = next
		changes.Snapshots = append(changes.Snapshots, next)
	}
	p.overlays = overlays
}

// noteVersions notes which versions of routes are new in a snapshot.
func (r *Rollout) noteVersions(p *pool, changed []*envoy.Resource, generation uint64) {
	for _, resource := range changed {
		for _, ref := range resource.Sources {
			if !isRoute(ref) || p.since[ref].version == r.objects[ref].ObjectVersion {
				continue
			}
			at := publication{version: r.objects[ref].ObjectVersion, generation: generation}
			if _, refused := p.refused[ref]; !refused && !r.published && r.acceptedBeforeStart[ref] == at.version {
				at.generation = 0
			}
			p.since[ref] = at
		}
	}
	if len(p.since) > 2*len(r.objects)+16 { // of routes that are gone
		maps.DeleteFunc(p.since, func(ref fleet.RouteRef, _ publication) bool { _, exists := r.objects[ref]; return !exists })
	}
}

// overlays are what the edges of each View get instead of, or besides, what the
// pool gets. The clusters that only a View uses are added to the pool's.
func (r *Rollout) overlays(p *pool, ref lbsync.PoolRef, base *envoy.Resources) map[string]envoy.Resources {
	overlays := map[string]envoy.Resources{}
	for _, e := range p.byStream() {
		m, exists := r.viewModels[e.view]
		if _, done := overlays[e.view]; done || !exists {
			continue
		}
		all := r.translator.resources(&r.translator.views, m, ref)
		overlays[e.view] = envoy.Resources{Listeners: missing(base.Listeners, all.Listeners), Routes: missing(base.Routes, all.Routes)}
		if more := missing(base.Clusters, all.Clusters); len(more) > 0 {
			base.Clusters = append(slices.Clip(base.Clusters), more...)
			slices.SortFunc(base.Clusters, func(a, b envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	return overlays
}

// missing are the resources that are not in a list in the same version.
func missing(list, wanted []envoy.Resource) []envoy.Resource {
	versions := make(map[string]string, len(list))
	for i := range list {
		versions[list[i].Name] = list[i].Version
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(r envoy.Resource) bool { return versions[r.Name] == r.Version })
}

// override gives each edge what it gets of its View, and reports whether that is
// new for any.
func (p *pool) override(next *Snapshot, overlays map[string]envoy.Resources) (changed bool) {
	for stream, e := range p.edges {
		own := overlays[e.view]
		if !sameVersions(p.snapshot.Overrides[stream], own) {
			changed, e.offered = true, next.Generation
		}
		if len(own.Listeners)+len(own.Routes) > 0 {
			if next.Overrides == nil {
				next.Overrides = map[uint64]envoy.Resources{}
			}
			next.Overrides[stream] = own
		}
	}
	return changed
}

func sameVersions(a, b envoy.Resources) bool {
	same := func(a, b envoy.Resource) bool { return a.Name == b.Name && a.Version == b.Version }
	return slices.EqualFunc(a.Listeners, b.Listeners, same) && slices.EqualFunc(a.Routes, b.Routes, same)
}

// withdraw forgets the pools that are gone, and returns their names.
func (r *Rollout) withdraw(pools []lbsync.PoolRef) []string {
	var withdrawn []string
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		if !slices.ContainsFunc(pools, func(p lbsync.PoolRef) bool { return p.Pool == name }) {
			delete(r.pools, name)
			for _, all := range r.earlier {
				for i := range all {
					delete(all[i].since, name)
				}
			}
			withdrawn = append(withdrawn, name)
		}
	}
	return withdrawn
}

// resourcesIn are all resources of a snapshot.
func resourcesIn(r envoy.Resources) func(yield func(*envoy.Resource) bool) {
	return func(yield func(*envoy.Resource) bool) {
		for _, list := range lists(r) {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

func lists(r envoy.Resources) [4][]envoy.Resource {
	return [4][]envoy.Resource{r.Listeners, r.Routes, r.Clusters, r.Secrets}
}

// difference returns the resources that are new or changed, and whether any was
// removed. Most changes replace a resource in place, so it compares in order.
// It compares by name only where the order differs.
func difference(old, next envoy.Resources) (changed []*envoy.Resource, removed bool) {
	before := lists(old)
	for i, list := range lists(next) {
		last := before[i]
		if model.SameSlice(last, list) {
			continue
		}
		if sameNames(last, list) {
			for k := range list {
				if last[k].Version != list[k].Version {
					changed = append(changed, &list[k])
				}
			}
			continue
		}
		versions := make(map[string]string, len(last))
		for k := range last {
			versions[last[k].Name] = last[k].Version
		}
		for k := range list {
			if versions[list[k].Name] != list[k].Version {
				changed = append(changed, &list[k])
			}
			delete(versions, list[k].Name)
		}
		removed = removed || len(versions) > 0
	}
	return changed, removed
}

func sameNames(a, b []envoy.Resource) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}
