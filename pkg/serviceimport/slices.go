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
	// Served are the slices of other clusters, as the hub serves them. Those of the
	// member itself are left out: it knows its own endpoints better, and without the hub.
	Served []discoveryv1.EndpointSlice
	// Stored are the imported slices that the member has.
	Stored []discoveryv1.EndpointSlice
	// Kept are those of them that stay as they are, because the hub is not heard of them.
	Kept []discoveryv1.EndpointSlice
	// Service is the member's own of that name; nil: it exports none.
	Service       *corev1.Service
	ServiceSlices []discoveryv1.EndpointSlice
	Zones         []string // of the member's nodes
}

// ImportedSlices returns the slices that the member should have, by name, without
// their owner. Each has the endpoints of one cluster (KEP-1645). They have
// kube-proxy's label if the import has a derived Service.
func (e Endpoints) ImportedSlices() []discoveryv1.EndpointSlice {
	var imported []discoveryv1.EndpointSlice
	for i := range e.Served {
		if !e.isOwn(&e.Served[i]) {
			imported = append(imported, e.imported(e.Served[i]))
		}
	}
	for i := range e.Kept {
		if !e.isOwn(&e.Kept[i]) {
			imported = append(imported, *e.Kept[i].DeepCopy())
		}
	}
	for i := range e.ServiceSlices {
		imported = append(imported, e.own(e.ServiceSlices[i])...)
	}
	slices.SortFunc(imported, func(a, b discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	e.hint(imported)
	return imported
}

func (e Endpoints) isOwn(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[mcsv1beta1.LabelSourceCluster] == string(e.Cluster)
}

// imported is a slice under the labels of imported slices.
func (e Endpoints) imported(source discoveryv1.EndpointSlice) discoveryv1.EndpointSlice {
	s := *source.DeepCopy()
	s.ObjectMeta = metav1.ObjectMeta{
		Namespace: e.Import.Namespace, Name: source.Name,
		Labels: map[string]string{
			mcsv1beta1.LabelServiceName:   e.Import.Name,
			mcsv1beta1.LabelSourceCluster: source.Labels[mcsv1beta1.LabelSourceCluster],
			discoveryv1.LabelManagedBy:    v1alpha1.ManagedByImports,
		},
	}
	if region := source.Labels[v1alpha1.LabelSourceRegion]; region != "" {
		s.Labels[v1alpha1.LabelSourceRegion] = region
	}
	if e.Import.Spec.Type != mcsv1beta1.Headless {
		s.Labels[discoveryv1.LabelServiceName] = DerivedName(e.Import.Name)
	}
	s.Ports = e.portsOf(source.Ports)
	return s
}

// portsOf are those ports of a slice that the import has. Its derived Service and
// the slices have them under their IDs (fleet.PortID), so that kube-proxy goes on
// when the import renames one. A headless import has no derived Service: there the
// names are the import's, for SRV records.
func (e Endpoints) portsOf(served []discoveryv1.EndpointPort) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for _, p := range served {
		of := find(e.Import.Spec.Ports, func(i mcsv1beta1.ServicePort) bool { return idOf(i) == ptr.Deref(p.Name, "") })
		if of == nil {
			continue
		}
		port := p.DeepCopy()
		port.AppProtocol = of.AppProtocol
		if e.Import.Spec.Type == mcsv1beta1.Headless {
			port.Name = ptr.To(of.Name)
		}
		ports = append(ports, *port)
	}
	return ports
}

// own returns the imported slices of one of the member's own Service, one for each part
// that the hub has of it. They keep node names, by which kube-proxy knows local
// endpoints. There are none if the member is none of the import's clusters, or if the
// slice has names instead of addresses.
func (e Endpoints) own(source discoveryv1.EndpointSlice) (own []discoveryv1.EndpointSlice) {
	exports := e.Service != nil && slices.ContainsFunc(e.Import.Status.Clusters, func(c mcsv1beta1.ClusterStatus) bool { return c.Cluster == string(e.Cluster) })
	if !exports {
		return nil
	}
	nodes := map[string]*string{}
	for _, endpoint := range source.Endpoints {
		nodes[endpoint.Addresses[0]] = endpoint.NodeName
	}
	for _, part := range serviceexport.Strip(e.Cluster, serviceexport.Source{Slice: source, Service: e.Service, Pushed: e.storedParts(&source)}) {
		part.Name = SliceName(e.Import.Name, e.Cluster, part.Name)
		part.Labels[v1alpha1.LabelSourceRegion] = e.Import.Annotations[v1alpha1.AnnotationRegion]
		part.Ports = slices.DeleteFunc(part.Ports, func(p discoveryv1.EndpointPort) bool { return !e.sameAppProtocol(*p.Name) })
		for i := range part.Endpoints {
			part.Endpoints[i].NodeName = nodes[part.Endpoints[i].Addresses[0]]
		}
		own = append(own, e.imported(part))
	}
	return own
}

// storedParts are the stored slices of one of the member's own Service, by number, with
// ports under their IDs as the hub has them.
func (e Endpoints) storedParts(source *discoveryv1.EndpointSlice) (parts []*discoveryv1.EndpointSlice) {
	for _, name := range serviceexport.PartNames(serviceexport.SliceName(source)) {
		name = SliceName(e.Import.Name, e.Cluster, name)
		stored := find(e.Stored, func(s discoveryv1.EndpointSlice) bool { return s.Name == name })
		if stored != nil {
			stored = stored.DeepCopy()
			stored.Ports = e.served(stored.Ports)
		}
		parts = append(parts, stored)
	}
	return parts
}

// served are the ports of a stored slice under their IDs again.
func (e Endpoints) served(stored []discoveryv1.EndpointPort) []discoveryv1.EndpointPort {
	ports := slices.Clone(stored)
	for i, p := range ports {
		of := find(e.Import.Spec.Ports, func(i mcsv1beta1.ServicePort) bool { return i.Name == ptr.Deref(p.Name, "") })
		if e.Import.Spec.Type == mcsv1beta1.Headless && of != nil {
			ports[i].Name = ptr.To(idOf(*of))
		}
	}
	return ports
}

// sameAppProtocol tells whether the member speaks the import's protocol on a port.
func (e Endpoints) sameAppProtocol(id string) bool {
	return slices.ContainsFunc(e.Import.Spec.Ports, func(p mcsv1beta1.ServicePort) bool {
		return idOf(p) == id && slices.ContainsFunc(e.Service.Spec.Ports, func(own corev1.ServicePort) bool {
			return fleet.PortID(string(own.Protocol), own.Port) == id && ptr.Deref(own.AppProtocol, "") == ptr.Deref(p.AppProtocol, "")
		})
	})
}

// SliceName is the name in all members of a slice that a cluster pushed for a service.
// Slices of several clusters are in one namespace there. At most 80 characters.
func SliceName(service string, cluster fleet.ClusterName, pushed string) string {
	sum := sha256.Sum256([]byte(string(cluster) + "/" + pushed))
	return service + "-" + hex.EncodeToString(sum[:8])
}

func idOf(p mcsv1beta1.ServicePort) string { return fleet.PortID(string(p.Protocol), p.Port) }

func find[T any](all []T, is func(T) bool) *T {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return &all[i]
	}
	return nil
}

// SameSlice tells whether a stored imported slice needs no write. Labels and
// annotations that others added do not count.
func SameSlice(have, want *discoveryv1.EndpointSlice) bool {
	_, hasLabel := have.Labels[discoveryv1.LabelServiceName]
	_, wantsLabel := want.Labels[discoveryv1.LabelServiceName]
	return hasLabel == wantsLabel && hasAll(have.Labels, want.Labels) && equal(have.OwnerReferences, want.OwnerReferences) &&
		equal(have.Endpoints, want.Endpoints) && equal(have.Ports, want.Ports)
}

// OurSlice tells whether Crossway made an imported slice.
func OurSlice(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[discoveryv1.LabelManagedBy] == v1alpha1.ManagedByImports
}
