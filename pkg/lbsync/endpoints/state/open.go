package state

import (
	"cmp"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
)

// OpenRequests are the requests of one region's clients for one import that a member has not answered to their end:
// long streams, for instance.
type OpenRequests struct {
	Backend fleet.Backend
	Region  string
	Cluster fleet.ClusterName
	Count   uint64
}

// noteOpen takes the requests that have not ended, of the assignments that a report is about.
func (s *State) noteOpen(e *edgeState, loads []Load) {
	for _, load := range loads {
		if s.assignments[load.Assignment] == nil {
			continue
		}
		open := map[string]uint64{}
		for _, l := range load.Localities {
			if l.Open > 0 && s.isPart(l.SubZone) {
				open[l.SubZone] += l.Open
			}
		}
		switch {
		case len(open) == 0:
			delete(e.open, load.Assignment)
		case e.open == nil:
			e.open = map[string]map[string]uint64{load.Assignment: open}
		default:
			e.open[load.Assignment] = open
		}
	}
}

// isPart says whether a sub-zone is of a member and a backend that there are: an edge may invent others.
func (s *State) isPart(subZone string) bool {
	cluster, backend, ok := lbsync.ParseSubZone(subZone)
	return ok && s.members[cluster] != nil && s.backends[backend] != nil
}

// OpenRequests lists what edges last reported, sorted. Only imports in use count.
func (s *State) OpenRequests() []OpenRequests {
	sums := map[OpenRequests]uint64{}
	for _, e := range s.edges {
		for _, open := range e.open {
			for subZone, n := range open {
				cluster, backend, ok := lbsync.ParseSubZone(subZone)
				if ok && backend.Kind == fleet.Import && s.backends[backend] != nil {
					sums[OpenRequests{Backend: backend, Region: e.Region, Cluster: cluster}] += n
				}
			}
		}
	}
	out := make([]OpenRequests, 0, len(sums))
	for key, n := range sums {
		key.Count = n
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b OpenRequests) int {
		return cmp.Or(a.Backend.Compare(b.Backend), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Cluster, b.Cluster))
	})
	return out
}

// OpenAt is at how many places an edge has requests that have not ended.
func (s *State) OpenAt(edge Edge) (places int) {
	if e := s.edges[edge.Key()]; e != nil {
		for _, open := range e.open {
			places += len(open)
		}
	}
	return places
}
