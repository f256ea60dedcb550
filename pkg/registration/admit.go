package registration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Admission says which addresses one member may announce. The zero value
// admits none, as for a cluster that is not an accepted member.
type Admission struct {
	Cluster fleet.ClusterName
	// CIDRs are the member's own, without those that Faults tells of.
	CIDRs []netip.Prefix
	// Reserved are the hub's own ranges, which no member may announce.
	Reserved []netip.Prefix
	// Faults say which of spec.endpointCIDRs count for nothing, and why.
	Faults []string
}

// Admissions gives the admission of every accepted member, by name. Members of
// one network must not have ranges in common: where they do, the older
// MemberCluster (ties by name) keeps its range and the other's whole range
// counts for nothing. reserved are the hub's own pod and service ranges: a range
// inside of one counts for nothing, too. The order of the members does not matter.
func Admissions(members []v1alpha1.MemberCluster, reserved []netip.Prefix) map[fleet.ClusterName]Admission {
	aged := slices.DeleteFunc(slices.Clone(members), func(m v1alpha1.MemberCluster) bool { return !Accepted(&m) })
	slices.SortFunc(aged, func(a, b v1alpha1.MemberCluster) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	all := map[fleet.ClusterName]Admission{}
	var taken []claim
	for _, m := range aged {
		a := Admission{Cluster: fleet.ClusterName(m.Name), Reserved: slices.Clone(reserved)}
		for _, text := range m.Spec.EndpointCIDRs {
			cidr, fault := usable(text, taken, reserved)
			if fault != "" {
				a.Faults = append(a.Faults, fault)
				continue
			}
			a.CIDRs = append(a.CIDRs, cidr)
		}
		for _, c := range a.CIDRs { // only now: a member's own ranges may overlap
			taken = append(taken, claim{cidr: c, cluster: a.Cluster})
		}
		all[a.Cluster] = a
	}
	return all
}

// Accepted tells whether a cluster is a member. One that is being deleted is
// not, whatever finalizers hold it.
func Accepted(m *v1alpha1.MemberCluster) bool { return m.Spec.Accepted && m.DeletionTimestamp == nil }

// claim is a range that an older member has.
type claim struct {
	cidr    netip.Prefix
	cluster fleet.ClusterName
}

func usable(text string, taken []claim, reserved []netip.Prefix) (cidr netip.Prefix, fault string) {
	cidr, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Sprintf("%q is not a CIDR like 10.1.0.0/16", text)
	}
	for _, r := range reserved {
		if r.Contains(cidr.Addr()) && r.Bits() <= cidr.Bits() {
			return netip.Prefix{}, fmt.Sprintf("%s is in %s, which is the hub's own", cidr, r)
		}
	}
	for _, t := range taken {
		if t.cidr.Overlaps(cidr) {
			return netip.Prefix{}, fmt.Sprintf("%s overlaps %s of MemberCluster %q, which is older", cidr, t.cidr, t.cluster)
		}
	}
	return cidr.Masked(), ""
}

// Refuses says why the member may not announce an address, or "" where it may.
// The text continues a sentence that begins with the address.
func (a Admission) Refuses(address netip.Addr) string {
	if s := special(address); s != "" {
		return s
	}
	for _, r := range a.Reserved {
		if r.Contains(address) {
			return fmt.Sprintf("is in %s, which is the hub's own", r)
		}
	}
	for _, c := range a.CIDRs {
		if c.Contains(address) {
			return ""
		}
	}
	if len(a.Faults) > 0 {
		return "is outside of those spec.endpointCIDRs that count (its MemberCluster says which do not)"
	}
	return "is outside of spec.endpointCIDRs"
}

// special says what kind of address no CIDR can admit: those that mean
// something else on each machine, or many machines.
func special(address netip.Addr) string {
	switch {
	case !address.IsValid():
		return "is not an IP address"
	case address.Is4In6():
		return "is an IPv4 address written as IPv6"
	case address.IsUnspecified():
		return "is the unspecified address"
	case address.IsLoopback():
		return "is a loopback address"
	case address.IsLinkLocalUnicast(), address.Zone() != "":
		return "is a link-local address"
	case address.IsMulticast():
		return "is a multicast address"
	case address == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}

// Admit sorts addresses, as they stand in EndpointSlices, into those that the
// member may announce and texts that say of the others why not, each once and
// in the order of the addresses' text.
func (a Admission) Admit(addresses []string) (admitted []netip.Addr, refused []string) {
	for _, text := range slices.Compact(slices.Sorted(slices.Values(addresses))) {
		address, err := netip.ParseAddr(text)
		if err != nil {
			refused = append(refused, fmt.Sprintf("%q is not an IP address", text))
			continue
		}
		if why := a.Refuses(address); why != "" {
			refused = append(refused, text+" "+why)
			continue
		}
		admitted = append(admitted, address)
	}
	return admitted, refused
}
