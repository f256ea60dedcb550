package memberapi

import (
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceimport"
)

// pushedSlice is a slice that a member pushed.
type pushedSlice struct {
	slice   *discoveryv1.EndpointSlice
	cluster fleet.ClusterName
	service fleet.ServiceName
}

// setSlice replaces a pushed slice, or removes it when nil.
func (s *State) setSlice(key SliceKey, slice *discoveryv1.EndpointSlice, now time.Time, touched *Touched) {
	var next *pushedSlice
	if slice != nil && slice.DeletionTimestamp == nil {
		// Names are not counted as endpoints, and one may look like an address.
		if cluster, service, ok := registration.SourceOf(slice); ok && slice.AddressType != discoveryv1.AddressTypeFQDN {
			next = &pushedSlice{slice, cluster, service}
		}
	}
	last := s.pushed[key]
	if last == nil || next == nil || !sameAddresses(last, next) { // else the same endpoints count
		for _, p := range []*pushedSlice{last, next} {
			if p != nil {
				s.recount.Insert(p.cluster)
			}
		}
	}
	if last != nil {
		s.forget(key, last)
		if next == nil || next.service != last.service {
			s.hide(last, now, touched)
		}
	}
	if next == nil {
		s.stale.Delete(key)
		return
	}
	s.pushed[key] = next
	insert(s.byService, next.service, key)
	insert(s.byCluster, next.cluster, key)
	s.stale.Insert(key)
}

// sameAddresses says whether two versions of a slice announce the same: most changes
// are of an endpoint's readiness.
func sameAddresses(a, b *pushedSlice) bool {
	return a.service == b.service && a.slice.UID == b.slice.UID && a.slice.AddressType == b.slice.AddressType &&
		slices.EqualFunc(a.slice.Endpoints, b.slice.Endpoints, func(x, y discoveryv1.Endpoint) bool {
			return len(x.Addresses) > 0 && len(y.Addresses) > 0 && x.Addresses[0] == y.Addresses[0]
		})
}

func (s *State) forget(key SliceKey, p *pushedSlice) {
	delete(s.pushed, key)
	remove(s.byService, p.service, key)
	remove(s.byCluster, p.cluster, key)
}

func insert[K comparable](index map[K]sets.Set[SliceKey], at K, key SliceKey) {
	if index[at] == nil {
		index[at] = sets.New[SliceKey]()
	}
	index[at].Insert(key)
}

func remove[K comparable](index map[K]sets.Set[SliceKey], at K, key SliceKey) {
	index[at].Delete(key)
	if len(index[at]) == 0 {
		delete(index, at)
	}
}

// show writes a slice as members see it, or removes it if none does.
func (s *State) show(p *pushedSlice, now time.Time, touched *Touched) {
	source := s.sources[p.cluster]
	ports, serves := portsOf(s.services[p.service], p)
	if source == nil || !serves {
		s.hide(p, now, touched)
		return
	}
	region, zone, count := source.region, source.zone, source.endpoints[p.service]
	s.set(s.Slices, p.name(), func() content {
		shown := p.identity(region)
		shown.Ports, shown.Endpoints = ports, endpointsOf(p.slice, count, zone)
		return EndpointSlices.contentOf(shown)
	}, EndpointSlices.contentOf(p.identity(region)), touched)
}

// hide removes a slice.
func (s *State) hide(p *pushedSlice, now time.Time, touched *Touched) {
	s.remove(s.Slices, p.name(), p.service, now, touched)
}

// name is the slice's name in all members.
func (p *pushedSlice) name() fleet.ObjectName {
	return fleet.ObjectName{Namespace: p.service.Namespace, Name: serviceimport.SliceName(p.service.Name, p.cluster, p.slice.Name)}
}

// identity is the slice without its endpoints.
func (p *pushedSlice) identity(region string) *discoveryv1.EndpointSlice {
	name := p.name()
	out := &discoveryv1.EndpointSlice{TypeMeta: EndpointSlices.typeMeta(), AddressType: p.slice.AddressType, Endpoints: []discoveryv1.Endpoint{}}
	out.Namespace, out.Name = name.Namespace, name.Name
	out.Labels = map[string]string{
		mcsv1beta1.LabelServiceName:   p.service.Name,
		mcsv1beta1.LabelSourceCluster: string(p.cluster),
		v1alpha1.LabelSourceRegion:    region,
	}
	return out
}

// portsOf returns the import's ports that a slice serves, under their names in the
// slice, so that a port renamed in the import changes no slice. serves is false if the
// slice's member does not export the service, or has none of its ports.
func portsOf(service *v1alpha1.FleetServiceSpec, p *pushedSlice) (ports []discoveryv1.EndpointPort, serves bool) {
	if service == nil || !slices.ContainsFunc(service.Clusters, func(c v1alpha1.ExportingCluster) bool { return c.Name == string(p.cluster) }) {
		return nil, false
	}
	ports = []discoveryv1.EndpointPort{}
	for _, port := range service.Ports {
		if port.Clusters != nil && !slices.Contains(port.Clusters, string(p.cluster)) {
			continue
		}
		key := fleet.PortID(string(port.Protocol), port.Port)
		at := slices.IndexFunc(p.slice.Ports, func(have discoveryv1.EndpointPort) bool { return ptr.Deref(have.Name, "") == key && have.Port != nil })
		if at < 0 {
			continue
		}
		ports = append(ports, discoveryv1.EndpointPort{Name: &key, Protocol: &port.Protocol, Port: p.slice.Ports[at].Port, AppProtocol: port.AppProtocol})
	}
	return ports, len(ports) > 0 || len(service.Ports) == 0 // a headless Service may have none
}

// endpointsOf returns the endpoints of a slice that count.
func endpointsOf(slice *discoveryv1.EndpointSlice, count registration.Endpoints, zone string) []discoveryv1.Endpoint {
	out := []discoveryv1.Endpoint{}
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if address, ok := registration.AddressOf(e); !ok || !count.Has(address) {
			continue
		}
		shown := discoveryv1.Endpoint{Addresses: e.Addresses[:1], Conditions: e.Conditions, Hostname: e.Hostname, Zone: e.Zone}
		if shown.Zone == nil && zone != "" {
			shown.Zone = &zone
		}
		out = append(out, shown)
	}
	return out
}
