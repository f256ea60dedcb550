package reconciler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
)

// words are an edge's about one generation of a route.
type words struct {
	generation int64
	message    string
}

// refusals are the NACKs in force. A route's holds until its generation
// changes; a Gateway's until the resource that was refused changes.
type refusals struct {
	routes   map[fleet.ObjectName]words
	gateways map[resourceID]refusal
}

func newRefusals() refusals {
	return refusals{routes: map[fleet.ObjectName]words{}, gateways: map[resourceID]refusal{}}
}

// blame finds whose change a NACK is about, and says how many were found.
func (r refusals) blame(n refusal, l ledger, m *model.Model, known origins, now generations) int {
	suspects, isKnown := l.suspects(n, known, func(route fleet.ObjectName) []string { return hints(m, route) })
	if !isKnown {
		return 0
	}
	for _, o := range suspects {
		generation, exists := now[o]
		if _, told := r.routes[o.name]; !exists || told && r.routes[o.name].generation == generation {
			continue // the first edge's words stay: several edges must not take turns in a status
		}
		r.routes[o.name] = words{generation, n.message}
	}
	if len(suspects) == 0 {
		if _, told := r.gateways[n.id]; !told || r.gateways[n.id].version != n.version {
			r.gateways[n.id] = n
		}
	}
	return len(suspects)
}

// nacks are the refusals that count now, with those that statuses remember,
// for Build. The rest is forgotten.
func (r refusals) nacks(routes []gatewayv1.HTTPRoute, l ledger, m *model.Model, now generations) []gateway.Nack {
	for i := range routes {
		route := &routes[i]
		name := fleet.ObjectName{Namespace: route.Namespace, Name: route.Name}
		if told, known := r.routes[name]; known && told.generation == route.Generation {
			continue
		}
		if message, refused := refusedByEdge(route); refused {
			r.routes[name] = words{route.Generation, message}
		}
	}
	var out []gateway.Nack
	maps.DeleteFunc(r.routes, func(name fleet.ObjectName, w words) bool {
		return now[object{condition.HTTPRoute, name}] != w.generation
	})
	for name, w := range r.routes {
		out = append(out, gateway.Nack{Ref: condition.Ref{Kind: condition.HTTPRoute, Name: name, Generation: w.generation}, Message: w.message})
	}
	maps.DeleteFunc(r.gateways, func(id resourceID, n refusal) bool { return l.current(id) != n.version })
	for id, n := range r.gateways {
		for _, name := range gatewaysOf(id, m) {
			if generation, exists := now[object{condition.Gateway, name}]; exists {
				out = append(out, gateway.Nack{Ref: condition.Ref{Kind: condition.Gateway, Name: name, Generation: generation}, Message: n.message})
			}
		}
	}
	slices.SortFunc(out, func(a, b gateway.Nack) int {
		return cmp.Or(cmp.Compare(a.Ref.Kind, b.Ref.Kind), a.Ref.Name.Compare(b.Ref.Name), strings.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(out, func(a, b gateway.Nack) bool { return a.Ref == b.Ref })
}
