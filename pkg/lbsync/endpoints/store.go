package endpoints

import (
	"maps"
	"net/netip"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// store is the compact copy of all slices, found by name and by the part that they belong to.
type store struct {
	slices map[sliceKey]*slice
	parts  map[fleet.Backend]map[fleet.ClusterName]*part
}

// part is what one cluster has of one backend, over all its slices.
type part struct{ slices map[sliceKey]*slice }

func newStore() *store {
	return &store{slices: map[sliceKey]*slice{}, parts: map[fleet.Backend]map[fleet.ClusterName]*part{}}
}

// set replaces a slice, or removes it when nil, and lists the parts that it was and is in.
func (s *store) set(key sliceKey, now *slice) []partKey {
	before := s.slices[key]
	if before == nil && now == nil {
		return nil
	}
	var touched []partKey
	if before != nil {
		s.drop(before.part, key)
		delete(s.slices, key)
		touched = append(touched, before.part)
	}
	if now != nil {
		s.slices[key] = now
		s.at(now.part).slices[key] = now
		if before == nil || before.part != now.part {
			touched = append(touched, now.part)
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
		clusters[key.cluster] = &part{slices: map[sliceKey]*slice{}}
	}
	return clusters[key.cluster]
}

func (s *store) drop(key partKey, name sliceKey) {
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

// clusters lists who has a part of a backend, sorted.
func (s *store) clusters(backend fleet.Backend) []fleet.ClusterName {
	return slices.Sorted(maps.Keys(s.parts[backend]))
}

// each calls f with every address of the part that admit lets through. Where the part has IPv4 addresses its IPv6 ones
// are left out: they are the same pods of a dual-stack Service, and would count twice.
func (p *part) each(admit func(netip.Addr) bool, f func(*slice, address)) {
	if p == nil {
		return
	}
	four := false
	for _, s := range p.slices {
		four = four || slices.ContainsFunc(s.endpoints, func(a address) bool { return a.ip.Is4() && admit(a.ip) })
	}
	for _, s := range p.slices {
		for _, a := range s.endpoints {
			if admit(a.ip) && (!four || a.ip.Is4()) {
				f(s, a)
			}
		}
	}
}

// ready counts the part's ready addresses, each once however many slices it stands in.
func (p *part) ready(admit func(netip.Addr) bool) int {
	seen := map[netip.Addr]bool{}
	p.each(admit, func(_ *slice, a address) {
		if a.state == fleet.Ready {
			seen[a.ip] = true
		}
	})
	return len(seen)
}

// endpoints gives the part's endpoints for a named port, sorted; slices that do not serve the port have none.
func (p *part) endpoints(m *member, portName string) []fleet.Endpoint {
	var out []fleet.Endpoint
	p.each(m.admit, func(s *slice, a address) {
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
