package replica

import (
	"cmp"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	// ServiceName is the headless Service of the hub's replicas, which publishes those that
	// are not ready, too: a replica hears the others before it serves.
	ServiceName = "crossway-hub-replicas"
	// PortName is that of its port for replicas.
	PortName = "replicas"
)

// PeersOf are the pods in the slices of ServiceName, by name.
func PeersOf(all []discoveryv1.EndpointSlice) []Peer {
	var out []Peer
	for _, s := range all {
		i := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == PortName && p.Port != nil })
		if i < 0 {
			continue
		}
		port := strconv.Itoa(int(*s.Ports[i].Port))
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" && len(e.Addresses) > 0 {
				out = append(out, Peer{Name: e.TargetRef.Name, Address: net.JoinHostPort(e.Addresses[0], port)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address)) })
	// A cluster of two families has a slice for each: one address of a pod is enough.
	return slices.CompactFunc(out, func(a, b Peer) bool { return a.Name == b.Name })
}

// PodOf is the reference to a pod that PeersOf needs of an endpoint; nil: another object.
func PodOf(target *corev1.ObjectReference) *corev1.ObjectReference {
	if target == nil || target.Kind != "Pod" {
		return nil
	}
	return &corev1.ObjectReference{Kind: target.Kind, Name: target.Name}
}
