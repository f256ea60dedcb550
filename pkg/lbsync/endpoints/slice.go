package endpoints

import (
	"net/netip"
	"strings"
	"unique"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// sliceKey is "namespace/name" of an EndpointSlice.
type sliceKey string

// partKey names one cluster's part of one backend.
type partKey struct {
	backend fleet.Backend
	cluster fleet.ClusterName
}

// slice is what is kept of an EndpointSlice: 40 bytes an endpoint, so that 150,000 of them cost 6 MB.
type slice struct {
	part      partKey
	ports     []slicePort
	endpoints []address
}

// slicePort is one port that all endpoints of a slice serve.
type slicePort struct {
	name   unique.Handle[string]
	number int32
}

// address is one endpoint; those that get no traffic at all are not kept.
type address struct {
	ip    netip.Addr
	zone  unique.Handle[string]
	state fleet.EndpointState
}

// readSlice gives the compact form, or nil for a slice that is nobody's: FQDN, or without the labels that name its
// service. Only the namespace says which cluster it comes from; no label can claim another.
func readSlice(s *discoveryv1.EndpointSlice) *slice {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	part, ok := partOf(s)
	if !ok {
		return nil
	}
	out := &slice{part: part, endpoints: make([]address, 0, len(s.Endpoints))}
	for _, p := range s.Ports {
		if p.Port == nil || (p.Protocol != nil && *p.Protocol != "TCP") {
			continue
		}
		out.ports = append(out.ports, slicePort{name: unique.Make(deref(p.Name)), number: *p.Port})
	}
	for i := range s.Endpoints {
		out.endpoints = appendAddress(out.endpoints, &s.Endpoints[i])
	}
	return out
}

// partOf says whose part of which service a slice is. A slice in a member's namespace is never one of the hub's own
// Services, whatever its labels say.
func partOf(s *discoveryv1.EndpointSlice) (partKey, bool) {
	if cluster, ok := strings.CutPrefix(s.Namespace, v1alpha1.MemberNamespacePrefix); ok {
		name := fleet.ServiceName{Namespace: s.Labels[v1alpha1.LabelServiceNamespace], Name: s.Labels[v1alpha1.LabelServiceName]}
		key := partKey{fleet.Backend{Kind: fleet.Import, Name: name}, fleet.ClusterName(cluster)}
		return key, name.Namespace != "" && name.Name != "" && cluster != ""
	}
	name := fleet.ServiceName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	return partKey{fleet.Backend{Kind: fleet.Service, Name: name}, fleet.HubCluster}, name.Name != ""
}

func appendAddress(to []address, e *discoveryv1.Endpoint) []address {
	state := stateOf(e.Conditions)
	if state == fleet.NotReady || len(e.Addresses) == 0 {
		return to
	}
	// The fields beyond the first address are unused since the API says so (EndpointSlice, addresses).
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return to
	}
	// As it stands: Admission refuses an IPv4 address written as IPv6, here as where the member is told.
	return append(to, address{ip: ip, zone: unique.Make(deref(e.Zone)), state: state})
}

// stateOf reads the conditions as their API documentation says: ready nil means true, serving nil means what ready is,
// terminating nil means false.
func stateOf(c discoveryv1.EndpointConditions) fleet.EndpointState {
	ready := c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	switch {
	case ready:
		return fleet.Ready
	case serving && c.Terminating != nil && *c.Terminating:
		return fleet.Draining
	default:
		return fleet.NotReady
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
