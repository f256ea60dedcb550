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
	SetAssignments(assignments []model.Assignment, imports []model.Traffic)
}

// published is the last snapshot of a pool.
type published struct {
	generation uint64
	versions   map[resourceID]string
}

// outlet publishes Models and remembers what it published. It is a value of
// the loop.
type outlet struct {
	publisher   Publisher
	assigner    Assigner
	translation translation
	ledger      ledger

	model  model.Model
	pools  map[string]published
	faults []envoy.Fault // of the last round
}

// publish brings every pool to the model. Pools of which nothing changed are
// left alone.
func (o *outlet) publish(m model.Model, places []lbsync.Place, now generations) {
	if o.pools == nil || !reflect.DeepEqual(o.model.Assignments, m.Assignments) || !reflect.DeepEqual(o.model.Imports, m.Imports) {
		o.assigner.SetAssignments(m.Assignments, m.Imports)
	}
	if o.pools == nil {
		o.pools = map[string]published{}
	}
	o.model, o.faults = m, nil
	everything := map[resourceID]bool{}
	wanted := map[string]bool{}
	for _, place := range places {
		wanted[place.Pool] = true
		resources := o.translation.resources(m, place)
		o.faults = append(o.faults, resources.Faults...)
		versions := versionsOf(resources)
		for id, version := range versions {
			everything[id] = true
			o.ledger.publish(id, version, func() origins { return originsOf(id, &m, now) })
		}
		if last, known := o.pools[place.Pool]; !known || !maps.Equal(last.versions, versions) {
			next := published{generation: last.generation + 1, versions: versions}
			o.pools[place.Pool] = next
			o.publisher.Publish(place.Pool, next.generation, resources)
		}
	}
	for pool := range o.pools {
		if !wanted[pool] {
			delete(o.pools, pool)
			o.publisher.Withdraw(pool)
		}
	}
	o.ledger.withdraw(everything)
	o.translation.forget()
}

func versionsOf(resources envoy.Resources) map[resourceID]string {
	lists := [][]envoy.Resource{resources.Listeners, resources.Routes, resources.ScopedRoutes, resources.Clusters, resources.Secrets}
	versions := make(map[resourceID]string, len(resources.Clusters)+len(resources.Routes)+len(resources.ScopedRoutes)+16)
	for _, r := range slices.Concat(lists...) {
		versions[resourceID{r.TypeURL, r.Name}] = r.Version
	}
	return versions
}

// numbers are the generations of all pools' newest snapshots.
func (o *outlet) numbers() map[string]uint64 {
	numbers := make(map[string]uint64, len(o.pools))
	for pool, p := range o.pools {
		numbers[pool] = p.generation
	}
	return numbers
}
