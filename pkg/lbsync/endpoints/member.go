package endpoints

import (
	"net/netip"

	"crossway.dev/crossway/pkg/fleet"
)

// member is what is known of one cluster: the hub's own, or an accepted MemberCluster.
type member struct {
	name   fleet.ClusterName
	place  fleet.Place
	scaler float64 // 0..1
	// admit says whether an address may reach an edge.
	admit func(netip.Addr) bool
}

// readMembers makes the members anew from all MemberClusters: whose CIDRs overlap depends on the others.
func (w *world) readMembers() {
	w.members = map[fleet.ClusterName]*member{fleet.HubCluster: {name: fleet.HubCluster, place: w.hub.Place, scaler: 1, admit: func(netip.Addr) bool { return true }}}
	for name, m := range w.objects {
		if !m.Spec.Accepted || name == string(fleet.HubCluster) {
			continue
		}
		scaler := 1.0
		if s := m.Spec.Capacity.Scaler; s != nil {
			scaler = float64(*s) / 100
		}
		var prefixes []netip.Prefix
		for _, c := range m.Spec.EndpointCIDRs {
			if p, err := netip.ParsePrefix(c); err == nil {
				prefixes = append(prefixes, p)
			}
		}
		w.members[fleet.ClusterName(name)] = &member{name: fleet.ClusterName(name), place: fleet.Place{Region: m.Spec.Region, Zone: m.Spec.Zone}, scaler: scaler,
			admit: func(a netip.Addr) bool {
				for _, p := range prefixes {
					if p.Contains(a) {
						return true
					}
				}
				return false
			}}
	}
}
