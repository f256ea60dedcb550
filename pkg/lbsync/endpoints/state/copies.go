package state

import (
	"maps"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// maxCopies bounds how many copies of endpoints the routes of one namespace make on each edge, beside one of each: no two
// routes share an Envoy cluster, and the clusters of a rule have each other's endpoints as spares. An endpoint takes an
// edge about 2 KB in each cluster, so this is 64 MB. Beyond it, the clusters have only a part of the endpoints; first the
// spares, then all.
const maxCopies = 32_768

// maxDivisor is the largest of lbsync.Divisors.
const maxDivisor = 1 << 20

// copies are what the routes of one namespace use of each backend.
type copies struct {
	own, spare map[fleet.Backend]int // assignments that have the backend, and that have it as a spare
	divisors   lbsync.Divisors
}

func newCopies() *copies {
	return &copies{own: map[fleet.Backend]int{}, spare: map[fleet.Backend]int{}, divisors: lbsync.Divisors{Own: 1, Fallback: 1}}
}

// count adds an assignment n times.
func (c *copies) count(a *model.Assignment, n int) {
	add := func(to map[fleet.Backend]int, list []model.WeightedBackend) {
		for i := range list {
			if to[list[i].Backend] += n; to[list[i].Backend] == 0 {
				delete(to, list[i].Backend)
			}
		}
	}
	add(c.own, a.Backends)
	add(c.spare, a.Fallback)
}

// countCopies adds an assignment to the copies of its namespace n times.
func (s *State) countCopies(a *model.Assignment, n int) {
	namespace := a.Route.Name.Namespace
	c := s.copies[namespace]
	if c == nil {
		c = newCopies()
		s.copies[namespace] = c
	}
	c.count(a, n)
	s.dirty.namespaces[namespace] = true
	if len(c.own) == 0 {
		delete(s.copies, namespace)
	}
}

// thinCopies sets the divisors of the namespaces whose copies changed. Where they change, all assignments of the
// namespace do.
func (s *State) thinCopies() {
	for key := range s.dirty.assignments {
		if a := s.assignments[key]; a != nil {
			s.dirty.namespaces[a.Route.Name.Namespace] = true
		}
	}
	changed := map[string]bool{}
	for namespace := range s.dirty.namespaces {
		if c := s.copies[namespace]; c != nil {
			last := c.divisors
			c.divisors = c.divisorsFor(s.backends)
			changed[namespace] = c.divisors != last
		}
	}
	maps.DeleteFunc(changed, func(_ string, changed bool) bool { return !changed })
	if len(changed) == 0 {
		return
	}
	for key, a := range s.assignments {
		if changed[a.Route.Name.Namespace] {
			s.dirty.assignments[key] = true
		}
	}
}

// divisorsFor are the least divisors that leave no more than maxCopies. They become less only where that leaves a quarter
// free, so that endpoints that come and go do not change them all the time.
func (c *copies) divisorsFor(backends map[fleet.Backend]*backendState) lbsync.Divisors {
	endpoints, own, spare := 0, 0, 0
	for backend, n := range c.own {
		if b := backends[backend]; b != nil {
			endpoints, own = endpoints+b.ready, own+n*b.ready
		}
	}
	for backend, n := range c.spare {
		if b := backends[backend]; b != nil {
			spare += n * b.ready
		}
	}
	fits := func(p lbsync.Divisors) bool {
		limit := maxCopies
		if p.Own < c.divisors.Own || p.Own == c.divisors.Own && p.Fallback < c.divisors.Fallback {
			limit -= maxCopies / 4
		}
		return own/int(p.Own)+spare/int(p.Fallback) <= endpoints/int(p.Own)+limit
	}
	p := lbsync.Divisors{Own: 1, Fallback: 1}
	for p.Fallback < maxDivisor && !fits(p) {
		p.Fallback *= 2
	}
	for p.Own < maxDivisor && !fits(p) {
		p.Own *= 2
	}
	return p
}

// Divisors are those of the namespaces that would make too many copies.
func (s *State) Divisors() map[string]lbsync.Divisors {
	divisors := map[string]lbsync.Divisors{}
	for namespace, c := range s.copies {
		if c.divisors.Own > 1 || c.divisors.Fallback > 1 {
			divisors[namespace] = c.divisors
		}
	}
	return divisors
}
