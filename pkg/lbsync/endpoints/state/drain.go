package state

import (
	"math"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// drainSteps is in how many steps a drain that takes time moves all requests: each costs a load assignment for each
	// import and region.
	drainSteps = 50
	// drainInterval is the least time between two steps.
	drainInterval = time.Second
)

// drainStep is the part, 0 to 1, of a member's requests that others get, and since when.
type drainStep struct {
	part float64
	at   time.Time
}

// stepDrains brings what is drained of each member up to date, and marks the imports that it has a part of.
func (s *State) stepDrains(now time.Time) {
	for name := range s.drained {
		if s.members[name] == nil {
			delete(s.drained, name)
		}
	}
	for name, m := range s.members {
		part, step := registration.Drained(m.drain, now), s.drained[name]
		if registration.DrainChanges(m.drain, now) {
			if part = math.Round(part*drainSteps) / drainSteps; now.Sub(step.at) < drainInterval {
				continue
			}
		}
		if part == step.part {
			continue
		}
		s.drained[name] = drainStep{part, now}
		for backend, b := range s.backends {
			if s.store.parts[backend][name] != nil {
				s.dirty.backends[b] = true
			}
		}
	}
}

// Drained is the part of each member's requests that others get, of members of which they get any.
func (s *State) Drained() map[fleet.ClusterName]float64 {
	out := map[fleet.ClusterName]float64{}
	for name, step := range s.drained {
		if step.part > 0 {
			out[name] = step.part
		}
	}
	return out
}
