package state

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// BackendStatus is what metrics and people see of one backend in use.
type BackendStatus struct {
	Backend fleet.Backend
	Rate    float64            // requests per second that one endpoint takes; 0: no limit
	Members []traffic.Capacity // by cluster
	Regions []RegionStatus     // by name
}

// RegionStatus is what metrics and people see of one backend in one region.
type RegionStatus struct {
	Demand  float64 // requests per second
	HeldOut []traffic.HeldOutMember
	// Learned: the shares were learned from an edge after a restart, and are kept until all edges have reported.
	Learned bool
	traffic.RegionShares
}

// Active says whether a backend in use has a rate, clients, or a member that is held out.
func (s *State) Active(backend fleet.Backend) bool {
	b := s.backends[backend]
	if b == nil {
		return false
	}
	for _, r := range b.regions {
		if r.demand.Rate() > 0 || len(r.health.HeldOut()) > 0 {
			return true
		}
	}
	return b.policy.Rate > 0
}

// Backend returns the status of one backend; ok is false where no assignment uses it.
func (s *State) Backend(backend fleet.Backend) (status BackendStatus, ok bool) {
	b := s.backends[backend]
	if b == nil {
		return BackendStatus{}, false
	}
	status = BackendStatus{Backend: backend, Rate: b.policy.Rate, Members: b.members}
	names := slices.Collect(maps.Keys(b.regions))
	for _, r := range b.shares {
		if b.regions[r.Region] == nil {
			names = append(names, r.Region)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		r := RegionStatus{RegionShares: b.sharesOf(name)}
		if reported := b.regions[name]; reported != nil {
			r.Demand, r.HeldOut, r.Learned = reported.demand.Rate(), reported.health.HeldOutMembers(), !reported.learnedAt.IsZero()
		}
		status.Regions = append(status.Regions, r)
	}
	return status, true
}

// Backends lists the backends in use, sorted.
func (s *State) Backends() []fleet.Backend {
	return slices.SortedFunc(maps.Keys(s.backends), fleet.Backend.Compare)
}

// Dump is the state as people see it: no endpoint has its address in it.
type Dump struct {
	Regions     map[string]RegionDump
	Members     map[fleet.ClusterName]MemberDump
	Assignments int // their number
	Backends    []BackendStatus
	// Decider is the replica whose shares are in force here. Ready: others may rely on this one.
	Decider  string
	Ready    bool
	Replicas map[string]ReplicaDump
}

// RegionDump is one region of the EdgePools.
type RegionDump struct {
	Nearest []string // other regions, in the order of overflow
	Edges   []string // connected
}

// MemberDump is one cluster.
type MemberDump struct {
	fleet.Place
	Scaler  float64 // 0 to 1
	Drained float64 // 0 to 1: the part of its requests that other members get
}

// Dump returns the state as people see it.
func (s *State) Dump() Dump {
	d := Dump{Regions: map[string]RegionDump{}, Members: map[fleet.ClusterName]MemberDump{}, Assignments: len(s.assignments),
		Decider: s.Decider(), Ready: s.replicas.ready, Replicas: s.dumpReplicas()}
	for _, r := range s.regions {
		d.Regions[r.name] = RegionDump{Nearest: r.nearest, Edges: r.edges}
	}
	for name, m := range s.members {
		d.Members[name] = MemberDump{Place: m.place, Scaler: m.scaler, Drained: s.drained[name].part}
	}
	for _, backend := range s.Backends() {
		status, _ := s.Backend(backend)
		d.Backends = append(d.Backends, status)
	}
	return d
}
