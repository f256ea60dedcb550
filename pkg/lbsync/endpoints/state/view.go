package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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

// Describe writes the state as text, for people.
func (s *State) Describe() string {
	var out strings.Builder
	for _, r := range s.regions {
		fmt.Fprintf(&out, "region %s: nearest %v, %d edges connected\n", r.name, r.nearest, len(r.edges))
	}
	for _, cluster := range slices.Sorted(maps.Keys(s.members)) {
		m := s.members[cluster]
		fmt.Fprintf(&out, "member %s: region %q, zone %q, scaler %.2f\n", cluster, m.place.Region, m.place.Zone, m.scaler)
	}
	fmt.Fprintf(&out, "%d assignments, %d backends\n", len(s.assignments), len(s.backends))
	for _, backend := range s.Backends() {
		status, _ := s.Backend(backend)
		status.describe(&out)
	}
	return out.String()
}

func (b BackendStatus) describe(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s", b.Backend)
	if b.Rate > 0 {
		fmt.Fprintf(out, ", %g requests/s per endpoint", b.Rate)
	}
	fmt.Fprintln(out)
	for _, m := range b.Members {
		fmt.Fprintf(out, "  member %s: region %q, %d ready", m.Cluster, m.Region, m.Ready)
		if b.Rate > 0 {
			fmt.Fprintf(out, ", capacity %g requests/s", float64(m.Ready)*b.Rate*m.Scaler)
		}
		fmt.Fprintln(out)
	}
	for _, r := range b.Regions {
		fmt.Fprintf(out, "  region %s: demand %.1f requests/s, shares", r.Region, r.Demand)
		if len(r.Shares) == 0 {
			fmt.Fprint(out, " none")
		}
		for _, s := range r.Shares {
			fmt.Fprintf(out, " %s %.2f %%", s.Cluster, float64(s.Parts)*100/traffic.TotalParts)
		}
		if r.Overflow > 0 {
			fmt.Fprintf(out, ", overflow %.2f %%", float64(r.Overflow)*100/traffic.TotalParts)
		}
		if r.Learned {
			fmt.Fprint(out, ", learned from edges")
		}
		fmt.Fprintln(out)
		for _, m := range r.HeldOut {
			fmt.Fprintf(out, "    held out: %s until %s", m.Cluster, m.RetryAt.UTC().Format(time.RFC3339))
			if m.Dead {
				fmt.Fprint(out, ", dead: not even connections can be made")
			}
			fmt.Fprintln(out)
		}
	}
}
