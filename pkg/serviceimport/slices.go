package serviceimport

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// Endpoints are the endpoints of one import, as one member knows them.
type Endpoints struct {
	Cluster fleet.ClusterName // the member itself
	Import  *mcsv1beta1.ServiceImport
	// Slices of other clusters, as the hub serves them. Those of the member itself
	// are left out: it knows its own endpoints better, and without the hub.
	Slices []discoveryv1.EndpointSlice
	// Service is the member's own of that name; nil: it exports none.
	Service       *corev1.Service
	ServiceSlices []discoveryv1.EndpointSlice
	Zones         []string // of the member's nodes; "": one has none
}

// ImportedSlices returns the slices that the member should have, by name, without their
// owner. Each has the endpoints of one cluster (KEP-1645). They have kube-proxy's
// label if the import has a derived Service.
func (e Endpoints) ImportedSlices() []discoveryv1.EndpointSlice {
	var imported []discoveryv1.EndpointSlice
	region := e.Import.Annotations[v1alpha1.AnnotationRegion]
	for _, served := range e.Slices {
		if served.Labels[mcsv1beta1.LabelSourceCluster] != string(e.Cluster) {
			imported = append(imported, e.slice(served, served.Labels[v1alpha1.LabelSourceRegion]))
		}
	}
	if e.exports() {
		for i := range e.ServiceSlices {
			if serviceexport.Pushable(&e.ServiceSlices[i]) {
				imported = append(imported, e.slice(e.own(&e.ServiceSlices[i]), region))
			}
		}
	}
	slices.SortFunc(imported, func(a, b discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	e.hint(imported, region)
	return imported
}

// exports tells whether the member is one of the import's clusters.
func (e Endpoints) exports() bool {
	return e.Service != nil && slices.ContainsFunc(e.Import.Status.Clusters, func(c mcsv1beta1.ClusterStatus) bool {
		return c.Cluster == string(e.Cluster)
	})
}

// slice copies what an imported slice has of its source.
func (e Endpoints) slice(source discoveryv1.EndpointSlice, region string) discoveryv1.EndpointSlice {
	s := discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Import.Namespace, Name: source.Name,
			Labels: map[string]string{
				mcsv1beta1.LabelServiceName:   e.Import.Name,
				mcsv1beta1.LabelSourceCluster: source.Labels[mcsv1beta1.LabelSourceCluster],
				discoveryv1.LabelManagedBy:    v1alpha1.ManagedByImports,
			},
		},
		AddressType: source.AddressType,
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{},
	}
	if region != "" {
		s.Labels[v1alpha1.LabelSourceRegion] = region
	}
	if e.Import.Spec.Type != mcsv1beta1.Headless {
		s.Labels[discoveryv1.LabelServiceName] = DerivedName(e.Import.Name)
	}
	for _, endpoint := range source.Endpoints {
		c := endpoint.DeepCopy()
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: c.Addresses, Conditions: c.Conditions, Hostname: c.Hostname, Zone: c.Zone, NodeName: c.NodeName,
		})
	}
	for _, p := range source.Ports {
		s.Ports = append(s.Ports, *p.DeepCopy())
	}
	return s
}

// own returns a slice of the member's own Service under the import's ports. It
// keeps node names, by which kube-proxy knows local endpoints.
func (e Endpoints) own(source *discoveryv1.EndpointSlice) discoveryv1.EndpointSlice {
	s := discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   ownSliceName(e.Cluster, source),
			Labels: map[string]string{mcsv1beta1.LabelSourceCluster: string(e.Cluster)},
		},
		AddressType: source.AddressType,
		Endpoints:   slices.Clone(source.Endpoints),
	}
	slices.SortStableFunc(s.Endpoints, func(a, b discoveryv1.Endpoint) int { return slices.Compare(a.Addresses, b.Addresses) })
	for _, p := range e.Import.Spec.Ports {
		if at := slices.IndexFunc(e.Service.Spec.Ports, func(own corev1.ServicePort) bool {
			return own.Port == p.Port && cmp.Or(own.Protocol, corev1.ProtocolTCP) == protocolOf(p) && ptr.Deref(own.AppProtocol, "") == ptr.Deref(p.AppProtocol, "")
		}); at >= 0 {
			s.Ports = append(s.Ports, portsOf(source, e.Service.Spec.Ports[at].Name, p)...)
		}
	}
	return s
}

// portsOf is the port of a slice that a Service calls so, under the import's name.
func portsOf(source *discoveryv1.EndpointSlice, name string, of mcsv1beta1.ServicePort) []discoveryv1.EndpointPort {
	for _, p := range source.Ports {
		if ptr.Deref(p.Name, "") == name && ptr.Deref(p.Protocol, corev1.ProtocolTCP) == protocolOf(of) && p.Port != nil {
			return []discoveryv1.EndpointPort{{Name: &of.Name, Protocol: p.Protocol, Port: p.Port, AppProtocol: p.AppProtocol}}
		}
	}
	return nil
}

// ownSliceName is the name of the copy of a member's own slice, like those that
// the hub gives to slices of others.
func ownSliceName(cluster fleet.ClusterName, source *discoveryv1.EndpointSlice) string {
	sum := sha256.Sum256([]byte(string(cluster) + "/" + source.Name))
	return source.Labels[discoveryv1.LabelServiceName] + "-" + hex.EncodeToString(sum[:8])
}

func protocolOf(p mcsv1beta1.ServicePort) corev1.Protocol {
	return cmp.Or(p.Protocol, corev1.ProtocolTCP)
}

// SameSlice tells whether a stored imported slice needs no write. Labels and
// annotations that others added do not count.
func SameSlice(have, want *discoveryv1.EndpointSlice) bool {
	_, hasLabel := have.Labels[discoveryv1.LabelServiceName]
	_, wantsLabel := want.Labels[discoveryv1.LabelServiceName]
	return hasLabel == wantsLabel && hasAll(have.Labels, want.Labels) && equal(have.ServiceSliceserReferences, want.OwnerReferences) &&
		equal(have.Endpoints, want.Endpoints) && equal(have.Ports, want.Ports)
}

// OurSlice tells whether Crossway made an imported slice.
func OurSlice(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[discoveryv1.LabelManagedBy] == v1alpha1.ManagedByImports
}
