package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// store is the compact copy of all slices, found by name and by the part that they belong to.
type store struct {
	slices map[SliceKey]*Slice
	parts  map[fleet.Backend]map[fleet.ClusterName]*part
	// ofMember are the slices of each member.
	ofMember map[fleet.ClusterName]map[SliceKey]*Slice
}

// part is one cluster's part of one backend, over all its slices.
type part struct{ slices map[SliceKey]*Slice }

func newStore() *store {
	return &store{slices: map[SliceKey]*Slice{}, parts: map[fleet.Backend]map[fleet.ClusterName]*part{},
		ofMember: map[fleet.ClusterName]map[SliceKey]*Slice{}}
}

// set replaces a slice, or removes it when nil, and lists the parts that it was and is in.
func (s *store) set(key SliceKey, after *Slice) []partKey {
	before := s.slices[key]
	if before == nil && after == nil {
		return nil
	}
	var touched []partKey
	if before != nil {
		s.drop(before.part, key)
		delete(s.slices, key)
		touched = append(touched, before.part)
	}
	if after != nil {
		s.slices[key] = after
		s.at(after.part).slices[key] = after
		if after.part.backend.Kind == fleet.Import {
			if s.ofMember[after.part.cluster] == nil {
				s.ofMember[after.part.cluster] = map[SliceKey]*Slice{}
			}
			s.ofMember[after.part.cluster][key] = after
		}
		if before == nil || before.part != after.part {
			touched = append(touched, after.part)
		}
	}
	return touched
}

func (s *store) at(key partKey) *part {
	clusters := s.parts[key.backend]
	if clusters == nil {
		clusters = map[fleet.ClusterName]*part{}
		s.parts[key.backend] = clusters
	}
	if clusters[key.cluster] == nil {
		clusters[key.cluster] = &part{slices: map[SliceKey]*Slice{}}
	}
	return clusters[key.cluster]
}

func (s *store) drop(key partKey, name SliceKey) {
	clusters := s.parts[key.backend]
	p := clusters[key.cluster]
	delete(p.slices, name)
	delete(s.ofMember[key.cluster], name)
	if len(p.slices) == 0 {
		delete(clusters, key.cluster)
	}
	if len(clusters) == 0 {
		delete(s.parts, key.backend)
	}
}

// clusters lists the clusters that have a part of a backend, sorted.
func (s *store) clusters(backend fleet.Backend) []fleet.ClusterName {
	return slices.Sorted(maps.Keys(s.parts[backend]))
}

// announced is what all slices of a member announce.
func (s *store) announced(cluster fleet.ClusterName) []registration.Announced {
	out := make([]registration.Announced, 0, len(s.ofMember[cluster]))
	for _, slice := range s.ofMember[cluster] {
		out = append(out, slice.announced())
	}
	return out
}

// each calls yield with every address of the part that is admitted and may get requests, of the oldest slice first. Where
// the part has IPv4 addresses its IPv6 ones are left out: they are the same pods of a dual-stack Service, and would count
// twice.
func (p *part) each(admit func(netip.Addr) bool, yield func(*Slice, address)) {
	if p == nil {
		return
	}
	counts := func(a address) bool { return a.state != fleet.NotReady && admit(a.ip) }
	hasIPv4 := false
	for _, s := range p.slices {
		hasIPv4 = hasIPv4 || slices.ContainsFunc(s.endpoints, func(a address) bool { return a.ip.Is4() && counts(a) })
	}
	for _, s := range slices.SortedFunc(maps.Values(p.slices), compareAge) {
		for _, a := range s.endpoints {
			if (!hasIPv4 || a.ip.Is4()) && counts(a) {
				yield(s, a)
			}
		}
	}
}

func compareAge(a, b *Slice) int {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
}

// ready counts the part's ready addresses, each once, whatever number of slices has it.
func (p *part) ready(admit func(netip.Addr) bool) int {
	addresses := map[netip.Addr]bool{}
	p.each(admit, func(_ *Slice, a address) {
		if a.state == fleet.Ready {
			addresses[a.ip] = true
		}
	})
	return len(addresses)
}

// endpoints returns the part's endpoints for a named port, sorted; slices that do not serve the port have none. An address
// that several slices have is one endpoint, else slices with a number each would multiply the endpoints: that of the
// oldest slice in which it is ready.
func (p *part) endpoints(m *member, admit func(netip.Addr) bool, portName string) []fleet.Endpoint {
	byAddress := map[netip.Addr]fleet.Endpoint{}
	p.each(admit, func(s *Slice, a address) {
		k := slices.IndexFunc(s.ports, func(p slicePort) bool { return p.name.Value() == portName })
		if have, found := byAddress[a.ip]; k < 0 || found && (have.State == fleet.Ready || a.state != fleet.Ready) {
			return
		}
		zone := a.zone.Value()
		if zone == "" {
			zone = m.place.Zone
		}
		byAddress[a.ip] = fleet.Endpoint{Cluster: m.name, Address: a.ip, Port: s.ports[k].number, Zone: zone, State: a.state}
	})
	return slices.SortedFunc(maps.Values(byAddress), fleet.Endpoint.Compare)
}
