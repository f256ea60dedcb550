package state

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/api/equality"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// member is one cluster: the hub's own, or an accepted MemberCluster.
type member struct {
	name   fleet.ClusterName
	place  fleet.Place
	scaler float64 // 0..1
	drain  *v1alpha1.MemberDrain
	// admission says which addresses may reach an edge.
	admission registration.Admission
	// endpoints are those of each service that count; the hub has none.
	endpoints map[fleet.ServiceName]registration.Endpoints
}

// admits returns which addresses of its part of a backend may reach an edge.
func (m *member) admits(backend fleet.Backend) func(netip.Addr) bool {
	if backend.Kind == fleet.Import {
		return m.endpoints[backend.Name].Has
	}
	return m.admit
}

func (m *member) admit(address netip.Addr) bool { return m.admission.Refuses(address) == "" }

// admitEndpoints reads which endpoints of a member count, and marks the backends for which that changed because of a slice
// of another.
func (s *State) admitEndpoints(cluster fleet.ClusterName) {
	m := s.members[cluster]
	if m == nil {
		return
	}
	before := m.endpoints
	m.endpoints = m.admission.Endpoints(s.store.announced(cluster))
	for service, now := range m.endpoints {
		if b := s.backends[fleet.Backend{Kind: fleet.Import, Name: service}]; b != nil && !now.Same(before[service]) {
			s.dirty.add(b)
		}
	}
}

// readMembers makes all members from all MemberClusters again: which CIDRs count depends on the other members.
func (s *State) readMembers() {
	s.members = map[fleet.ClusterName]*member{fleet.HubCluster: {name: fleet.HubCluster, place: s.hub.Place, scaler: 1,
		admission: registration.Admission{Cluster: fleet.HubCluster, CIDRs: s.hub.CIDRs}}}
	all := make([]v1alpha1.MemberCluster, 0, len(s.objects))
	for _, m := range s.objects {
		all = append(all, *m)
	}
	admissions := registration.Admissions(all, s.hub.CIDRs)
	for _, m := range all {
		name := fleet.ClusterName(m.Name)
		admission, accepted := admissions[name]
		if !accepted || name == fleet.HubCluster {
			continue
		}
		scaler := 1.0
		if percent := m.Spec.Capacity.Scaler; percent != nil {
			scaler = float64(*percent) / 100
		}
		s.members[name] = &member{name: name, place: fleet.Place{Region: m.Spec.Region, Zone: m.Spec.Zone}, scaler: scaler, drain: m.Spec.Drain, admission: admission}
		s.admitEndpoints(name)
	}
}

// sameMember says whether two versions of a MemberCluster are equal in what counts here. Their status does not count.
func sameMember(a, b *v1alpha1.MemberCluster) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && registration.Accepted(a) == registration.Accepted(b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}
