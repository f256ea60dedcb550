package rollout

import (
	"maps"
	"reflect"
	"slices"

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
}

// Changes are what Publish asks the caller to hand over, in this order.
type Changes struct {
	// Assignments: the Model's assignments or import policies changed. Whoever
	// makes load assignments must know them before a snapshot is handed over.
	Assignments bool
	// Snapshots are of the pools of which something changed.
	Snapshots []Snapshot
	// Withdrawn are the pools that are gone, sorted.
	Withdrawn []string
	// Faults are the parts of all snapshots that Envoy would refuse.
	Faults []envoy.Fault
}

// Publish sets the Model that the edges of these pools should get, and returns
// what changed.
func (r *Rollout) Publish(m model.Model, pools []lbsync.PoolRef) Changes {
	var changes Changes
	changes.Assignments = !r.published || !equalLists(r.model.Assignments, m.Assignments, model.Assignment.Equal) || !reflect.DeepEqual(r.model.Imports, m.Imports)
	r.model = m
	translated := make([]envoy.Resources, len(pools))
	for i, pool := range pools {
		translated[i] = r.translator.resources(m, pool)
		changes.Faults = append(changes.Faults, translated[i].Faults...)
	}
	r.translator.sweep()
	anyRemoved := false
	for i, pool := range pools {
		last, ok := r.pools[pool.Pool]
		changed, removed := difference(last.Resources, translated[i])
		anyRemoved = anyRemoved || removed
		for _, resource := range changed {
			r.history.publish(resource, r.objects)
		}
		if !ok || removed || len(changed) > 0 {
			next := Snapshot{Pool: pool.Pool, Generation: last.Generation + 1, Resources: translated[i]}
			r.pools[pool.Pool] = next
			changes.Snapshots = append(changes.Snapshots, next)
		}
	}
	changes.Withdrawn = r.withdraw(pools)
	if anyRemoved || len(changes.Withdrawn) > 0 {
		r.history.keepOnly(r.resourceIDs())
	}
	r.gateways.published(&m, r.objects, r.pools)
	if !r.published {
		r.published = true
		r.gateways.restore(r.acceptedBeforeStart)
	}
	return changes
}

// withdraw forgets the pools that are gone, and returns their names.
func (r *Rollout) withdraw(pools []lbsync.PoolRef) []string {
	var withdrawn []string
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		if !slices.ContainsFunc(pools, func(p lbsync.PoolRef) bool { return p.Pool == name }) {
			delete(r.pools, name)
			withdrawn = append(withdrawn, name)
		}
	}
	return withdrawn
}

// resourceIDs are all resources that any pool has.
func (r *Rollout) resourceIDs() map[ResourceID]bool {
	all := map[ResourceID]bool{}
	for _, pool := range r.pools {
		for resource := range resourcesIn(pool.Resources) {
			all[idOf(resource)] = true
		}
	}
	return all
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
