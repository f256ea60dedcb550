package endpoints

import (
	"maps"
	"runtime"
	"slices"
	"sync"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// published is what edges got.
type published struct {
	regions map[string]map[string]loadAssignment // by region and key of the assignment
	pools   map[string]string                    // the region of which each pool got everything
}

// loadAssignment is an encoded load assignment, and the number of its backends that share addresses with others.
type loadAssignment struct {
	resource envoy.Resource
	overlaps int
}

func newPublished() published {
	return published{regions: map[string]map[string]loadAssignment{}, pools: map[string]string{}}
}

// set replaces the load assignment of one region, and says whether it is another version.
func (p published) set(region string, l loadAssignment) (changed bool) {
	if p.regions[region] == nil {
		p.regions[region] = map[string]loadAssignment{}
	}
	before := p.regions[region][l.resource.Name]
	p.regions[region][l.resource.Name] = l
	return before.resource.Version != l.resource.Version
}

// remove drops load assignments that are gone, and all of the regions that are.
func (p published) remove(keys []string, regions []string) {
	maps.DeleteFunc(p.regions, func(region string, _ map[string]loadAssignment) bool { return !slices.Contains(regions, region) })
	for _, byKey := range p.regions {
		for _, key := range keys {
			delete(byKey, key)
		}
	}
}

// all lists the load assignments of a region, by key.
func (p published) all(region string) []envoy.Resource {
	byKey := p.regions[region]
	out := make([]envoy.Resource, 0, len(byKey))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		out = append(out, byKey[key].resource)
	}
	return out
}

// publish encodes assignments again and sends what differs to the pools of each region. A pool that is new, or moved to
// another region, gets everything. Before the first Build nothing is sent to any pool.
func (l *Loop) publish(keys, removed []string) {
	regions := l.state.Regions()
	l.published.remove(removed, regions)
	changed := map[string][]envoy.Resource{}
	n := 0
	for _, encoded := range l.encode(keys, regions) {
		for region, one := range encoded {
			if l.published.set(region, one) {
				changed[region] = append(changed[region], one.resource)
				n++
			}
		}
	}
	if !l.assignmentsSet {
		return
	}
	pools := l.state.Pools()
	maps.DeleteFunc(l.published.pools, func(pool, _ string) bool { return !l.state.HasPool(pool) })
	for _, p := range pools {
		if l.published.pools[p.Pool] != p.Region {
			l.published.pools[p.Pool] = p.Region
			l.config.Publisher.UpdateLoadAssignments(p.Pool, l.published.all(p.Region), removed)
			continue
		}
		if len(changed[p.Region]) > 0 || len(removed) > 0 {
			l.config.Publisher.UpdateLoadAssignments(p.Pool, changed[p.Region], removed)
		}
	}
	l.metrics.published.Add(float64(n))
}

// encode makes the load assignments of some assignments for every region, on all processors where they are many.
func (l *Loop) encode(keys, regions []string) []map[string]loadAssignment {
	results := make([]map[string]loadAssignment, len(keys))
	workers := min(runtime.GOMAXPROCS(0), 1+len(keys)/16)
	var group sync.WaitGroup
	for n := range workers {
		group.Go(func() {
			for i := n; i < len(keys); i += workers {
				results[i] = l.encodeOne(keys[i], regions)
			}
		})
	}
	group.Wait()
	return results
}

// partsKey is what the parts of a backend depend on.
type partsKey struct {
	backend fleet.Backend
	port    string
}

// encodeOne makes the load assignment of one assignment for every region. It only reads the state, and the endpoints, which
// are the same for all regions, once.
func (l *Loop) encodeOne(key string, regions []string) map[string]loadAssignment {
	out := make(map[string]loadAssignment, len(regions))
	parts, encoder := map[partsKey][]lbsync.Part{}, envoy.LoadAssignments{}
	for _, region := range regions {
		in := l.state.AssignInput(key, region)
		read := in.Parts
		in.Parts = func(b model.WeightedBackend) []lbsync.Part {
			k := partsKey{b.Backend, b.PortName}
			if _, ok := parts[k]; !ok {
				parts[k] = read(b)
			}
			return parts[k]
		}
		assigned := lbsync.Assign(in)
		resource, err := encoder.Encode(assigned)
		if err != nil {
			l.config.Log.Error(err, "could not encode load assignment", "assignment", key, "region", region)
			continue
		}
		out[region] = loadAssignment{resource: resource, overlaps: len(assigned.Overlaps)}
	}
	return out
}
