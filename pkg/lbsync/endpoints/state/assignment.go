package state

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// SetAssignments replaces all assignments and the policies of their imports. It lists the keys of assignments that are
// gone, sorted.
func (s *State) SetAssignments(assignments []model.Assignment, policies []model.ImportPolicy) (removed []string) {
	present := make(map[string]bool, len(assignments))
	for i := range assignments {
		a := &assignments[i]
		present[a.Key] = true
		old := s.assignments[a.Key]
		if old != nil && old.Equal(*a) { // equal in all fields, also those of the Envoy cluster alone: that costs little
			continue
		}
		if old != nil {
			s.removeUser(old)
		}
		kept := *a
		s.assignments[a.Key] = &kept
		s.addUser(&kept)
	}
	for key, a := range s.assignments {
		if !present[key] {
			s.removeUser(a)
			delete(s.assignments, key)
			for _, e := range s.edges {
				delete(e.open, key)
			}
			removed = append(removed, key)
		}
	}
	s.setPolicies(policies)
	s.replicas.assignmentsSet = true
	maps.DeleteFunc(s.backends, func(_ fleet.Backend, b *backendState) bool {
		if len(b.users) == 0 {
			for _, c := range s.store.clusters(b.backend) {
				s.readmit(b, c, s.ended)
			}
			if b.said != nil {
				s.replicas.said[b.backend] = nil
			}
		}
		return len(b.users) == 0
	})
	slices.Sort(removed)
	return removed
}

// backendsOf lists the backends that an assignment depends on.
func backendsOf(a *model.Assignment) []model.WeightedBackend {
	if len(a.Fallback) == 0 {
		return a.Backends
	}
	return slices.Concat(a.Backends, a.Fallback)
}

func (s *State) addUser(a *model.Assignment) {
	s.countCopies(a, 1)
	s.dirty.assignments[a.Key] = true
	for _, w := range backendsOf(a) {
		b := s.backends[w.Backend]
		if b == nil {
			b = newBackendState(w.Backend)
			s.backends[w.Backend] = b
		}
		s.dirty.backends[b] = true // which clusters count depends on the assignment
		b.users[a.Key] = true
	}
}

func (s *State) removeUser(a *model.Assignment) {
	s.countCopies(a, -1)
	for _, w := range backendsOf(a) {
		if b := s.backends[w.Backend]; b != nil {
			delete(b.users, a.Key)
		}
	}
}

func (s *State) setPolicies(policies []model.ImportPolicy) {
	for _, p := range s.policies {
		s.removedPolicies[p.Policy] = &removedPolicy{generation: p.Generation}
	}
	for _, p := range policies {
		delete(s.removedPolicies, p.Policy)
	}
	s.policies = policies
	set := map[fleet.Backend]bool{}
	for _, p := range policies {
		set[p.Backend] = true
		s.setPolicy(s.backends[p.Backend], p)
	}
	for backend, b := range s.backends {
		if !set[backend] {
			s.setPolicy(b, newBackendState(backend).policy)
		}
	}
}

func (s *State) setPolicy(b *backendState, p model.ImportPolicy) {
	if b == nil || b.policy == p {
		return
	}
	b.policy = p
	b.members = nil // the new shares are published, however small the move
	s.dirty.add(b)
}

// Assignment returns the assignment of a key.
func (s *State) Assignment(key string) (a model.Assignment, ok bool) {
	if a := s.assignments[key]; a != nil {
		return *a, true
	}
	return model.Assignment{}, false
}

// AssignInput is all that the load assignment of one assignment for one region depends on.
func (s *State) AssignInput(key, region string) lbsync.AssignInput {
	a := s.assignments[key]
	if a == nil {
		return lbsync.AssignInput{}
	}
	in := lbsync.AssignInput{Assignment: *a, Region: region, Parts: s.parts}
	if c := s.copies[a.Route.Name.Namespace]; c != nil {
		in.Divisors = c.divisors
	}
	for _, w := range backendsOf(a) {
		if b := s.backends[w.Backend]; b != nil && b.shares != nil && w.Backend.Kind == fleet.Import {
			in.Shares = append(in.Shares, traffic.BackendShares{Backend: w.Backend, RegionShares: b.sharesOf(region)})
		}
	}
	return in
}

func (s *State) parts(w model.WeightedBackend) []lbsync.Part {
	var out []lbsync.Part
	for _, cluster := range s.store.clusters(w.Backend) {
		m := s.members[cluster]
		if m == nil {
			continue
		}
		out = append(out, lbsync.Part{Backend: w.Backend, Cluster: cluster, Place: m.place,
			Endpoints: s.store.parts[w.Backend][cluster].endpoints(m, m.admits(w.Backend), w.PortName)})
	}
	return out
}

// capacities lists the members that have a part of a backend, by name.
func (s *State) capacities(backend fleet.Backend) []traffic.Capacity {
	var out []traffic.Capacity
	for _, cluster := range s.store.clusters(backend) {
		m := s.members[cluster]
		if m == nil || !s.exports(cluster, backend) {
			continue
		}
		out = append(out, traffic.Capacity{Cluster: cluster, Region: m.place.Region, Ready: s.store.parts[backend][cluster].ready(m.admits(backend)),
			Scaler: m.scaler, Drained: s.drained[cluster].part})
	}
	return out
}

// exports says whether an assignment takes a cluster's part of a backend. A member that does not export the service, or
// not its port, has no share, whatever slices it pushed.
func (s *State) exports(cluster fleet.ClusterName, backend fleet.Backend) bool {
	b := s.backends[backend]
	if b == nil {
		return true
	}
	for key := range b.users {
		for _, w := range backendsOf(s.assignments[key]) {
			if w.Backend == backend && (w.Clusters == nil || slices.Contains(w.Clusters, cluster)) {
				return true
			}
		}
	}
	return false
}
