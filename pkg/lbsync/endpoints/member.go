package endpoints

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/api/equality"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// member is what is known of one cluster: the hub's own, or an accepted MemberCluster.
type member struct {
	name   fleet.ClusterName
	place  fleet.Place
	scaler float64 // 0..1
	// admission says which addresses may reach an edge.
	admission registration.Admission
}

func (m *member) admit(address netip.Addr) bool { return m.admission.Refuses(address) == "" }

// readMembers makes the members anew from all MemberClusters: whose CIDRs overlap depends on the others.
func (w *world) readMembers() {
	own := w.hub.CIDRs
	if len(own) == 0 {
		own = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	w.members = map[fleet.ClusterName]*member{fleet.HubCluster: {name: fleet.HubCluster, place: w.hub.Place, scaler: 1,
		admission: registration.Admission{Cluster: fleet.HubCluster, CIDRs: own}}}
	all := make([]v1alpha1.MemberCluster, 0, len(w.objects))
	for _, m := range w.objects {
		all = append(all, *m)
	}
	admissions := registration.Admissions(all, w.hub.CIDRs)
	for _, m := range all {
		name := fleet.ClusterName(m.Name)
		admission, accepted := admissions[name]
		if !accepted || name == fleet.HubCluster {
			continue
		}
		scaler := 1.0
		if s := m.Spec.Capacity.Scaler; s != nil {
			scaler = float64(*s) / 100
		}
		w.members[name] = &member{name: name, place: fleet.Place{Region: m.Spec.Region, Zone: m.Spec.Zone}, scaler: scaler, admission: admission}
	}
}

// sameMember says that nothing that matters here differs: a status does not.
func sameMember(a, b *v1alpha1.MemberCluster) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && registration.Accepted(a) == registration.Accepted(b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}
