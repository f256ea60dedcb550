package state

import (
	"maps"
	"net/netip"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// store is the compact copy of all slices, found by name and by the part that they belong to.
type store struct {
	slices map[SliceKey]*Slice
	parts  map[fleet.Backend]map[fleet.ClusterName]*part
}

// part is one cluster's part of one backend, over all its slices.
type part struct{ slices map[SliceKey]*Slice }

func newStore() *store {
	return &store{slices: map[SliceKey]*Slice{}, parts: map[fleet.Backend]map[fleet.ClusterName]*part{}}
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

// each calls yield with every address of the part that is admitted. Where the part has IPv4 addresses its IPv6 ones are
// left out: they are the same pods of a dual-stack Service, and would count twice.
func (p *part) each(admit func(netip.Addr) bool, yield func(*Slice, address)) {
	if p == nil {
		return
	}
	hasIPv4 := false
	for _, s := range p.slices {
		hasIPv4 = hasIPv4 || slices.ContainsFunc(s.endpoints, func(a address) bool { return a.ip.Is4() && admit(a.ip) })
	}
	for _, s := range p.slices {
		for _, a := range s.endpoints {
			if admit(a.ip) && (!hasIPv4 || a.ip.Is4()) {
				yield(s, a)
			}
		}
	}
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

// endpoints returns the part's endpoints for a named port, sorted; slices that do not serve the port have none.
func (p *part) endpoints(m *member, portName string) []fleet.Endpoint {
	var out []fleet.Endpoint
	p.each(m.admit, func(s *Slice, a address) {
		k := slices.IndexFunc(s.ports, func(p slicePort) bool { return p.name.Value() == portName })
		if k < 0 {
			return
		}
		zone := a.zone.Value()
		if zone == "" {
			zone = m.place.Zone
		}
		out = append(out, fleet.Endpoint{Cluster: m.name, Address: a.ip, Port: s.ports[k].number, Zone: zone, State: a.state})
	})
	slices.SortFunc(out, fleet.Endpoint.Compare)
	return out
}
