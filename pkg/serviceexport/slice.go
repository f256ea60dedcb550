package serviceexport

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// ServiceOf returns the name of the Service that a slice of the member belongs to.
// ok is false for a slice of no Service.
func ServiceOf(slice *discoveryv1.EndpointSlice) (service fleet.ServiceName, ok bool) {
	name := slice.Labels[discoveryv1.LabelServiceName]
	return fleet.ServiceName{Namespace: slice.Namespace, Name: name}, name != ""
}

// SliceName is the name on the hub of a member's slice, or of its first part if it has
// several: the name of its Service and a hash of its own namespace and name, at most
// 80 characters. It never changes, and no two slices of a member have the same.
func SliceName(slice *discoveryv1.EndpointSlice) string {
	sum := sha256.Sum256([]byte(slice.Namespace + "/" + slice.Name))
	return slice.Labels[discoveryv1.LabelServiceName] + "-" + hex.EncodeToString(sum[:8])
}

// Source is one slice of the member, and what it is read with.
type Source struct {
	Slice   discoveryv1.EndpointSlice
	Service *corev1.Service   // names the ports
	Zones   map[string]string // by node, for endpoints without a zone of their own
	// Pushed are its parts as the hub has them, by number; nil: that one is not there.
	Pushed []*discoveryv1.EndpointSlice
}

// Strip returns a member's slice as the hub should have it, without its owner: one
// slice, or several parts of a large one, each under one of the PartNames. They keep
// ports and, of endpoints, the address, conditions, zone and hostname. A source that
// changed only the order of endpoints, hints or node names gives the same: endpoints are
// in the order in which the hub has them, and new ones come last, by address. So those
// that count there go on to count where a limit leaves others out. There is nothing of a
// slice of host names instead of IP addresses.
func Strip(cluster fleet.ClusterName, source Source) []discoveryv1.EndpointSlice {
	slice := &source.Slice
	if !Pushable(slice) {
		return nil
	}
	var endpoints []discoveryv1.Endpoint
	for _, e := range slice.Endpoints {
		endpoints = append(endpoints, stripEndpoint(e.DeepCopy(), source.Zones))
	}
	names, ports := PartNames(SliceName(slice)), source.ports()
	var stripped []discoveryv1.EndpointSlice
	for n, part := range parts(endpoints, source.Pushed) {
		if part == nil {
			continue
		}
		stripped = append(stripped, discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: v1alpha1.MemberNamespace(cluster),
				Name:      names[n],
				Labels: map[string]string{
					v1alpha1.LabelServiceName:      slice.Labels[discoveryv1.LabelServiceName],
					v1alpha1.LabelServiceNamespace: slice.Namespace,
					v1alpha1.LabelSourceCluster:    string(cluster),
					discoveryv1.LabelManagedBy:     v1alpha1.ManagedBySlices,
				},
			},
			AddressType: slice.AddressType,
			Endpoints:   part,
			Ports:       slices.Clone(ports),
		})
	}
	return stripped
}

// Pushable tells whether a slice has IP addresses. Other slices never leave the cluster.
func Pushable(slice *discoveryv1.EndpointSlice) bool {
	return slice.AddressType == discoveryv1.AddressTypeIPv4 || slice.AddressType == discoveryv1.AddressTypeIPv6
}

// stripEndpoint returns what the hub should have of an endpoint. An endpoint may have
// several addresses, of which only the first is used (EndpointSlice, addresses). A zone
// that no node can have, because it is too long for a label, is left out: the hub
// would refuse it.
func stripEndpoint(e *discoveryv1.Endpoint, zones map[string]string) discoveryv1.Endpoint {
	if zone := zones[ptr.Deref(e.NodeName, "")]; e.Zone == nil && zone != "" {
		e.Zone = &zone
	}
	if len(ptr.Deref(e.Zone, "")) > validation.LabelValueMaxLength {
		e.Zone = nil
	}
	return discoveryv1.Endpoint{Addresses: e.Addresses[:min(1, len(e.Addresses))], Conditions: e.Conditions, Hostname: e.Hostname, Zone: e.Zone}
}
