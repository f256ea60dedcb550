package serviceexport

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// ServiceOf names the service that a slice of the member belongs to; ok is
// false for a slice of none.
func ServiceOf(slice *discoveryv1.EndpointSlice) (service fleet.ServiceName, ok bool) {
	name := slice.Labels[discoveryv1.LabelServiceName]
	return fleet.ServiceName{Namespace: slice.Namespace, Name: name}, name != ""
}

// SliceName is the name on the hub of a member's slice: its service and a hash
// of its own namespace and name, at most 80 characters, so that it is the same
// after any restart and no two slices of a member share it.
func SliceName(slice *discoveryv1.EndpointSlice) string {
	sum := sha256.Sum256([]byte(slice.Namespace + "/" + slice.Name))
	return slice.Labels[discoveryv1.LabelServiceName] + "-" + hex.EncodeToString(sum[:8])
}

// Strip is a member's slice as the hub shall have it, without its owner:
// addresses, ports, conditions, zones and hostnames, endpoints sorted by
// address, so that a source which only changed their order, its hints or the
// node names changes nothing. A slice that has names instead of IP addresses
// is refused: ok is false.
func Strip(cluster fleet.ClusterName, slice discoveryv1.EndpointSlice, zones map[string]string) (stripped discoveryv1.EndpointSlice, ok bool) {
	if !Pushable(&slice) {
		return discoveryv1.EndpointSlice{}, false
	}
	stripped = discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.MemberNamespace(cluster),
			Name:      SliceName(&slice),
			Labels: map[string]string{
				v1alpha1.LabelServiceName:      slice.Labels[discoveryv1.LabelServiceName],
				v1alpha1.LabelServiceNamespace: slice.Namespace,
				v1alpha1.LabelSourceCluster:    string(cluster),
				discoveryv1.LabelManagedBy:     v1alpha1.ManagedBySlices,
			},
		},
		AddressType: slice.AddressType,
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{},
	}
	for _, e := range slice.Endpoints {
		stripped.Endpoints = append(stripped.Endpoints, strippedEndpoint(e, zones))
	}
	slices.SortStableFunc(stripped.Endpoints, func(a, b discoveryv1.Endpoint) int { return slices.Compare(a.Addresses, b.Addresses) })
	for _, p := range slice.Ports {
		stripped.Ports = append(stripped.Ports, *p.DeepCopy())
	}
	return stripped, true
}

// Pushable tells whether a slice has IP addresses: others never leave the cluster.
func Pushable(slice *discoveryv1.EndpointSlice) bool {
	return slice.AddressType == discoveryv1.AddressTypeIPv4 || slice.AddressType == discoveryv1.AddressTypeIPv6
}

func strippedEndpoint(e discoveryv1.Endpoint, zones map[string]string) discoveryv1.Endpoint {
	stripped := discoveryv1.Endpoint{
		Addresses:  slices.Clone(e.Addresses),
		Conditions: *e.Conditions.DeepCopy(),
		Hostname:   copied(e.Hostname),
		Zone:       copied(e.Zone),
	}
	if stripped.Zone == nil && e.NodeName != nil && zones[*e.NodeName] != "" {
		zone := zones[*e.NodeName]
		stripped.Zone = &zone
	}
	return stripped
}
