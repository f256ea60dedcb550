package reconciler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
)

// words are an edge's about one generation of a route.
type words struct {
	generation int64
	message    string
	// Where several routes are suspected, all of them are left out and tried
	// again, a part of them at a time: on is then the resource that was refused.
	trial bool
	on    resourceID
}

// refusals are the NACKs in force. A route's holds until its generation
// changes; a Gateway's until the resource that was refused changes.
type refusals struct {
	routes   map[fleet.RouteRef]words
	gateways map[resourceID]refusal
	// acquitted are the generations of routes that were let in again. Their
	// status may still say otherwise.
	acquitted map[fleet.RouteRef]int64
	// trials are how many routes on trial to let in next.
	trials map[resourceID]int
}

func newRefusals() refusals {
	return refusals{
		routes: map[fleet.RouteRef]words{}, gateways: map[resourceID]refusal{},
		acquitted: map[fleet.RouteRef]int64{}, trials: map[resourceID]int{},
	}
}

// blame finds whose change a NACK is about, and says how many were found.
func (r refusals) blame(n refusal, l ledger, m *model.Model, known origins, now generations) int {
	l.nack(n)
	at := slices.IndexFunc(l.made[n.id], func(made making) bool { return made.version == n.version })
	if at < 0 || r.explains(l.made[n.id][at].from) {
		return 0 // of a resource that is replaced already: what replaced it is answered, too
	}
	suspects, certain := l.suspects(n, known, func(route fleet.RouteRef) []string { return hints(m, route) })
	if len(suspects) == 0 {
		r.gateways[n.id] = n
		return 0
	}
	for _, o := range suspects {
		generation, exists := now[o]
		changed := generation != l.made[n.id][at].from[o] && l.current(n.id).version != n.version
		if exists && !changed {
			r.routes[o] = words{generation: generation, message: n.message, trial: !certain, on: n.id}
			delete(r.acquitted, o)
		}
	}
	delete(r.trials, n.id)
	if r.onTrial(n.id) != nil {
		r.trials[n.id] = max(1, len(suspects)/2)
	}
	return len(suspects)
}

// explains says whether a route that is left out by now was in it.
func (r refusals) explains(from origins) bool {
	for o, generation := range from {
		if w, told := r.routes[o]; told && w.generation == generation {
			return true
		}
	}
	return false
}

// onTrial are the routes on trial for one resource, by name.
func (r refusals) onTrial(id resourceID) []fleet.RouteRef {
	var names []fleet.RouteRef
	for name, w := range r.routes {
		if w.trial && w.on == id {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, fleet.RouteRef.Compare)
	return names
}

// retry lets a part of the routes on trial in again where an edge has taken
// the resource as it is now. Refused again, they alone are the suspects, and
// fewer of them are tried next; taken, more are. So of n routes that changed
// at once and k guilty ones, about k log n versions find those.
func (r refusals) retry(l ledger) {
	for id, n := range r.trials {
		names := r.onTrial(id)
		if current := l.current(id); len(names) > 0 && current.version != "" && !current.acked {
			continue
		}
		for _, name := range names[:min(n, len(names))] {
			r.acquitted[name] = r.routes[name].generation
			delete(r.routes, name)
		}
		if r.trials[id] = 2 * n; n >= len(names) {
			delete(r.trials, id)
		}
	}
}

// waits says whether there is something to do about what is published now
// without an edge saying anything.
func (r refusals) waits(l ledger) bool {
	for id := range r.trials {
		if current := l.current(id); current.version == "" || current.acked {
			return true
		}
	}
	return slices.ContainsFunc(l.repeated(), func(n refusal) bool {
		return r.gateways[n.id].version != n.version && !r.explains(l.current(n.id).from)
	})
}

// forget drops what Gateways were refused for that no pool has any more. A
// listener has another address, and so another version, in each pool: which of
// them was published last says nothing.
func (r refusals) forget(serves func(resourceID, string) bool) {
	maps.DeleteFunc(r.gateways, func(id resourceID, n refusal) bool { return !serves(id, n.version) })
}

// outlive forgets what was said about routes that are gone. One that has such a
// name now is held innocent until an edge says otherwise: its status may have
// got what was meant for the other.
func (r refusals) outlive(gone sets.Set[fleet.ObjectRef], now generations) {
	for o := range gone {
		delete(r.routes, o)
		delete(r.acquitted, o)
		if generation, again := now[o]; again {
			r.acquitted[o] = generation
		}
	}
}

// nacks are the refusals that count now, with those that statuses remember,
// for Build. The rest is forgotten.
func (r refusals) nacks(remembered map[fleet.RouteRef]words, m *model.Model, now generations) []gateway.Nack {
	for name, w := range remembered {
		if told, known := r.routes[name]; known && told.generation == w.generation || r.acquitted[name] == w.generation {
			continue
		}
		r.routes[name] = w
	}
	var out []gateway.Nack
	maps.DeleteFunc(r.routes, func(route fleet.RouteRef, w words) bool {
		return now[route] != w.generation
	})
	for route, w := range r.routes {
		out = append(out, gateway.Nack{Ref: condition.Ref{Kind: route.Kind, Name: route.Name, Generation: w.generation}, Message: w.message})
	}
	maps.DeleteFunc(r.acquitted, func(route fleet.RouteRef, generation int64) bool {
		return now[route] != generation
	})
	for id, n := range r.gateways {
		for _, name := range gatewaysOf(id, m) {
			if generation, exists := now[gatewayRef(name)]; exists {
				out = append(out, gateway.Nack{Ref: condition.Ref{Kind: condition.Gateway, Name: name, Generation: generation}, Message: n.message})
			}
		}
	}
	slices.SortFunc(out, func(a, b gateway.Nack) int {
		return cmp.Or(cmp.Compare(a.Ref.Kind, b.Ref.Kind), a.Ref.Name.Compare(b.Ref.Name), strings.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(out, func(a, b gateway.Nack) bool { return a.Ref == b.Ref })
}
