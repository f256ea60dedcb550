package reconciler

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
)

// EdgeProgress is how far one connected edge is with its pool's snapshots.
type EdgeProgress struct {
	// Answered is the Generation of the newest snapshot of which it has taken or
	// refused everything; 0: none yet.
	Answered uint64
	// Refused are the names of the listeners, RouteConfigurations and scopes of the current snapshot that it refuses.
	Refused []string
}

// placing is a generation of a Gateway and since which snapshot of each of its
// pools it is published.
type placing struct {
	generation int64
	pools      map[string]uint64
	// done: all connected edges had it at once. An edge that comes later is not
	// waited for, for until it has everything it does not serve the Gateway at all.
	done bool
}

// progress follows Gateways from being published to being programmed. It is a
// value of the loop.
type progress map[fleet.ObjectName]placing

// published notes what a Model puts where. numbers are the pools' newest snapshots.
func (p progress) published(m *model.Model, generationOf func(fleet.ObjectName) int64, numbers map[string]uint64) {
	pools := map[fleet.ObjectName]map[string]uint64{}
	for i := range m.Listeners {
		l := &m.Listeners[i]
		if pools[l.Gateway] == nil {
			pools[l.Gateway] = map[string]uint64{}
		}
		for _, a := range l.Addresses {
			pools[l.Gateway][a.Pool] = numbers[a.Pool]
		}
	}
	maps.DeleteFunc(p, func(name fleet.ObjectName, _ placing) bool { return pools[name] == nil })
	for name, places := range pools {
		was, known := p[name]
		generation := generationOf(name)
		if known && was.generation == generation && sameKeys(was.pools, places) {
			continue
		}
		p[name] = placing{generation: generation, pools: places}
	}
}

func sameKeys(a, b map[string]uint64) bool {
	return len(a) == len(b) && maps.EqualFunc(a, b, func(uint64, uint64) bool { return true })
}

// remember takes over that a Gateway was programmed before this process
// started, for edges need a moment to come back.
func (p progress) remember(name fleet.ObjectName) {
	if was, known := p[name]; known {
		was.done = true
		p[name] = was
	}
}

// programming is the state of every Gateway. patient: edges may not have come
// back yet, so a Gateway that was programmed counts as such without any.
func (p progress) programming(edges map[string][]EdgeProgress, patient bool) gateway.Progress {
	out := make(gateway.Progress, len(p))
	for name, place := range p {
		state := gateway.Programming{Generation: place.generation, Early: patient}
		for pool, since := range place.pools {
			if len(edges[pool]) == 0 {
				state.Unserved = append(state.Unserved, pool)
			}
			for _, edge := range edges[pool] {
				state.Connected++
				if edge.Answered >= since && !slices.ContainsFunc(edge.Refused, func(r string) bool { return belongs(r, name) }) {
					state.Acked++
				}
			}
		}
		slices.Sort(state.Unserved)
		switch {
		case state.Connected > 0 && state.Acked == state.Connected:
			place.done = true
			p[name] = place
		case place.done && state.Acked > 0:
			state.Acked = state.Connected
		case place.done && patient:
			state.Connected, state.Acked = 1, 1
		}
		out[name] = state
	}
	return out
}

// belongs says whether a listener or RouteConfiguration is of a Gateway.
func belongs(resource string, name fleet.ObjectName) bool {
	prefix := name.String() + "/"
	return len(resource) > len(prefix) && resource[:len(prefix)] == prefix && resource[len(prefix)] >= '0' && resource[len(prefix)] <= '9'
}
