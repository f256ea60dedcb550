package state

import (
	"net/netip"
	"time"
	"unique"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// SliceKey is "namespace/name" of an EndpointSlice.
type SliceKey string

// partKey names one cluster's part of one backend.
type partKey struct {
	backend fleet.Backend
	cluster fleet.ClusterName
}

// Slice is the compact form of an EndpointSlice: 40 bytes for each endpoint, so that 150,000 of them cost 6 MB.
type Slice struct {
	part      partKey
	created   time.Time
	name      string
	ports     []slicePort
	endpoints []address
}

// slicePort is one port that all endpoints of a slice serve.
type slicePort struct {
	name   unique.Handle[string]
	number int32
}

// address is one endpoint. Those that are not ready are kept, too: they count for the limits of a member.
type address struct {
	ip    netip.Addr
	zone  unique.Handle[string]
	state fleet.EndpointState
}

// ReadSlice returns the compact form, or nil for no slice, a slice of FQDNs, or one without the labels that name its
// service. Only the namespace says which cluster a slice comes from; no label can claim another.
func ReadSlice(s *discoveryv1.EndpointSlice) *Slice {
	if s == nil || s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	part, ok := partOf(s)
	if !ok {
		return nil
	}
	out := &Slice{part: part, created: s.CreationTimestamp.Time, name: s.Name, endpoints: make([]address, 0, len(s.Endpoints))}
	for _, p := range s.Ports {
		if p.Port == nil || (p.Protocol != nil && *p.Protocol != "TCP") {
			continue
		}
		out.ports = append(out.ports, slicePort{name: unique.Make(ptr.Deref(p.Name, "")), number: *p.Port})
	}
	for i := range s.Endpoints {
		out.endpoints = appendAddress(out.endpoints, &s.Endpoints[i])
	}
	return out
}

// partOf says which cluster's part of which service a slice is. A slice in a member's namespace is never one of the hub's own
// Services, whatever its labels say.
func partOf(s *discoveryv1.EndpointSlice) (partKey, bool) {
	if _, ok := v1alpha1.MemberOfNamespace(s.Namespace); ok {
		cluster, name, ok := registration.SourceOf(s)
		return partKey{fleet.Backend{Kind: fleet.Import, Name: name}, cluster}, ok
	}
	name := fleet.ServiceName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	return partKey{fleet.Backend{Kind: fleet.Service, Name: name}, fleet.HubCluster}, name.Name != ""
}

func appendAddress(to []address, e *discoveryv1.Endpoint) []address {
	// The address is not converted: Admission refuses an IPv4 address written as IPv6, here as in the member's conditions.
	ip, ok := registration.AddressOf(e)
	if !ok {
		return to
	}
	return append(to, address{ip: ip, zone: unique.Make(ptr.Deref(e.Zone, "")), state: stateOf(e.Conditions)})
}

// announced is the slice of a member, as its admission sees it.
func (s *Slice) announced() registration.Announced {
	return registration.Announced{Service: s.part.backend.Name, Created: s.created, Name: s.name, Size: len(s.endpoints), Addresses: func(yield func(netip.Addr) bool) {
		for _, a := range s.endpoints {
			if !yield(a.ip) {
				return
			}
		}
	}}
}

// stateOf reads the conditions as their API documentation says: a missing ready means true, a missing serving the value
// of ready, a missing terminating false.
func stateOf(c discoveryv1.EndpointConditions) fleet.EndpointState {
	ready := ptr.Deref(c.Ready, true)
	serving := ptr.Deref(c.Serving, ready)
	switch {
	case ready:
		return fleet.Ready
	case serving && ptr.Deref(c.Terminating, false):
		return fleet.Draining
	default:
		return fleet.NotReady
	}
}
