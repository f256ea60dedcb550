package serviceexport

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/fleet"
)

// kubernetesSlices is the managed-by label's value of slices that
// kube-controller-manager makes of a Service's pods.
const kubernetesSlices = "endpointslice-controller.k8s.io"

// ports are the slice's ports under their IDs (fleet.PortID), sorted by ID: a port
// that is renamed in the Service changes nothing. A port of the slice that no port
// of the Service names, or that has no number, is left out.
//
// A change reaches the agent as two events, of the Service and of the slice, in any
// order. Between them names of the one mean nothing in the other, or another port.
// What was pushed for a port stays then, as long as the slice has its number.
func (s Source) ports() []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	between := s.betweenVersions()
	for _, p := range s.Service.Spec.Ports {
		id := fleet.PortID(string(p.Protocol), p.Port)
		served := find(s.Slice.Ports, func(e discoveryv1.EndpointPort) bool { return named(p, e) })
		if served == nil || between {
			kept := find(s.pushedPorts(), func(e discoveryv1.EndpointPort) bool { return ptr.Deref(e.Name, "") == id && s.has(e, between) })
			served = cmp.Or(kept, served)
		}
		if served == nil || served.Port == nil {
			continue
		}
		port := served.DeepCopy()
		port.Name = &id
		ports = append(ports, *port)
	}
	slices.SortFunc(ports, func(a, b discoveryv1.EndpointPort) int { return cmp.Compare(*a.Name, *b.Name) })
	return ports
}

// pushedPorts are the ports on the hub, which all parts of a slice have.
func (s Source) pushedPorts() []discoveryv1.EndpointPort {
	for _, p := range s.Pushed {
		if p != nil {
			return p.Ports
		}
	}
	return nil
}

// betweenVersions tells whether the Service and its slice are known not to be of one
// version. Each port of a slice by kube-controller-manager has the name of a port of
// the Service and, unless that is a name, its targetPort. Slices of others say
// nothing about versions.
func (s Source) betweenVersions() bool {
	return s.Slice.Labels[discoveryv1.LabelManagedBy] == kubernetesSlices &&
		slices.ContainsFunc(s.Slice.Ports, func(e discoveryv1.EndpointPort) bool {
			p := find(s.Service.Spec.Ports, func(p corev1.ServicePort) bool { return named(p, e) })
			return p == nil || p.TargetPort.IntVal > 0 && p.TargetPort.IntVal != ptr.Deref(e.Port, 0)
		})
}

// has tells whether the slice has the number of a pushed port, under any name or
// under one that no port of the Service has.
func (s Source) has(pushed discoveryv1.EndpointPort, anyName bool) bool {
	return slices.ContainsFunc(s.Slice.Ports, func(e discoveryv1.EndpointPort) bool {
		return ptr.Equal(e.Port, pushed.Port) && protocolOf(e) == protocolOf(pushed) &&
			(anyName || find(s.Service.Spec.Ports, func(p corev1.ServicePort) bool { return named(p, e) }) == nil)
	})
}

// named tells whether a port of a slice has the name and protocol of a Service's,
// which is how kube-proxy finds it.
func named(p corev1.ServicePort, e discoveryv1.EndpointPort) bool {
	return ptr.Deref(e.Name, "") == p.Name && protocolOf(e) == cmp.Or(p.Protocol, corev1.ProtocolTCP)
}

func protocolOf(p discoveryv1.EndpointPort) corev1.Protocol {
	return ptr.Deref(p.Protocol, corev1.ProtocolTCP)
}

func find[P any](ports []P, is func(P) bool) *P {
	if i := slices.IndexFunc(ports, is); i >= 0 {
		return &ports[i]
	}
	return nil
}
