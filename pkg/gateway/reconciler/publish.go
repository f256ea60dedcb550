package reconciler

import (
	"maps"
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// Publisher gives resources to the edges of a pool. Its methods do not wait
// for an edge.
type Publisher interface {
	// Publish replaces all but the load assignments of a pool.
	Publish(pool string, generation uint64, resources envoy.Resources)
	// Progress is how far each connected edge of a pool is.
	Progress(pool string) []EdgeProgress
	// Withdraw forgets a pool that is gone.
	Withdraw(pool string)
}

// Assigner makes load assignments. It is told of an assignment before the
// cluster that needs it is published.
type Assigner interface {
	SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy)
}

// published is the last snapshot of a pool.
type published struct {
	generation uint64
	resources  envoy.Resources
}

// outlet publishes Models and remembers what it published. It is a value of
// the loop.
type outlet struct {
	publisher   Publisher
	assigner    Assigner
	translation *translation
	ledger      ledger

	model  model.Model
	pools  map[string]published
	faults []envoy.Fault // of the last round
}

// publish brings every pool to the model. Pools of which nothing changed are
// left alone.
func (o *outlet) publish(m model.Model, places []lbsync.PoolRef, now generations) {
	if o.pools == nil || !sameList(o.model.Assignments, m.Assignments, sameAssignment) || !reflect.DeepEqual(o.model.Imports, m.Imports) {
		o.assigner.SetAssignments(m.Assignments, m.Imports)
	}
	if o.pools == nil {
		o.pools = map[string]published{}
	}
	o.model, o.faults = m, nil
	translated := make([]envoy.Resources, len(places))
	for i, place := range places {
		translated[i] = o.translation.resources(m, place)
		o.faults = append(o.faults, translated[i].Faults...)
	}
	removed := false
	for i, place := range places {
		resources := translated[i]
		last, known := o.pools[place.Pool]
		changed, fewer := difference(last.resources, resources)
		removed = removed || fewer
		for _, r := range changed {
			id := resourceID{r.TypeURL, r.Name}
			o.ledger.publish(id, r.Version, func() origins { return originsOf(id, &m, now) })
		}
		if !known || fewer || len(changed) > 0 {
			next := published{generation: last.generation + 1, resources: resources}
			o.pools[place.Pool] = next
			o.publisher.Publish(place.Pool, next.generation, resources)
		}
	}
	maps.DeleteFunc(o.pools, func(pool string, _ published) bool {
		gone := !slices.ContainsFunc(places, func(p lbsync.PoolRef) bool { return p.Pool == pool })
		if gone {
			o.publisher.Withdraw(pool)
		}
		removed = removed || gone
		return gone
	})
	if removed {
		o.ledger.withdraw(o.everything())
	}
	o.translation.forget()
}

// everything that any pool has now.
func (o *outlet) everything() map[resourceID]bool {
	all := map[resourceID]bool{}
	for _, p := range o.pools {
		for _, list := range lists(p.resources) {
			for _, r := range list {
				all[resourceID{r.TypeURL, r.Name}] = true
			}
		}
	}
	return all
}

// serves says whether any pool has this version of a resource now.
func (o *outlet) serves(id resourceID, version string) bool {
	for _, p := range o.pools {
		for _, list := range lists(p.resources) {
			if slices.ContainsFunc(list, func(r envoy.Resource) bool { return resourceID{r.TypeURL, r.Name} == id && r.Version == version }) {
				return true
			}
		}
	}
	return false
}

func lists(r envoy.Resources) [5][]envoy.Resource {
	return [5][]envoy.Resource{r.Listeners, r.Routes, r.ScopedRoutes, r.Clusters, r.Secrets}
}

// difference is what is new or changed, and whether something was removed. It
// compares in order, for most rounds change a resource in place, and by name
// only where the order is no longer the same.
func difference(old, next envoy.Resources) (changed []envoy.Resource, removed bool) {
	before := lists(old)
	for i, list := range lists(next) {
		last := before[i]
		if model.SameSlice(last, list) {
			continue
		}
		if sameNames(last, list) {
			for k := range list {
				if last[k].Version != list[k].Version {
					changed = append(changed, list[k])
				}
			}
			continue
		}
		versions := make(map[string]string, len(last))
		for _, r := range last {
			versions[r.Name] = r.Version
		}
		for _, r := range list {
			if versions[r.Name] != r.Version {
				changed = append(changed, r)
			}
			delete(versions, r.Name)
		}
		removed = removed || len(versions) > 0
	}
	return changed, removed
}

func sameNames(a, b []envoy.Resource) bool {
	return slices.EqualFunc(a, b, func(x, y envoy.Resource) bool { return x.Name == y.Name })
}

// numbers are the generations of all pools' newest snapshots.
func (o *outlet) numbers() map[string]uint64 {
	numbers := make(map[string]uint64, len(o.pools))
	for pool, p := range o.pools {
		numbers[pool] = p.generation
	}
	return numbers
}
