package state

import (
	"net/netip"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// Unserved are the addresses of a Service of the hub's cluster that get no requests, because they are not the hub's own: of
// slices without a selector, or of pods in the network of their node. NoSlice is a Service that has none at all: nobody
// has made one for a Service without a selector.
type Unserved struct {
	Service fleet.ServiceName
	NoSlice bool
	Count   int
	Of      int
	First   netip.Addr // of them
}

// UnservedAddresses lists the Services in use that have such addresses, or no slice, sorted. Members say the same of theirs in the status
// of an export.
func (s *State) UnservedAddresses() []Unserved {
	hub := s.members[fleet.HubCluster]
	var out []Unserved
	for backend := range s.backends {
		if backend.Kind != fleet.Service || hub == nil {
			continue
		}
		r := Unserved{Service: backend.Name}
		all := map[netip.Addr]bool{}
		if p := s.store.parts[backend][fleet.HubCluster]; p == nil || len(p.slices) == 0 {
			r.NoSlice = true
		} else {
			for _, slice := range p.slices {
				for _, a := range slice.endpoints {
					if a.state != fleet.NotReady {
						all[a.ip] = true
					}
				}
			}
		}
		r.Of = len(all)
		for ip := range all {
			if hub.admit(ip) {
				continue
			}
			if r.Count++; r.Count == 1 || ip.Less(r.First) {
				r.First = ip
			}
		}
		if r.Count > 0 || r.NoSlice {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Unserved) int { return a.Service.Compare(b.Service) })
	return out
}
