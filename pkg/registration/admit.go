package registration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Admission is the rule which endpoints one member may announce. The zero value,
// for a cluster that is not an accepted member, admits none.
type Admission struct {
	Cluster fleet.ClusterName
	// CIDRs are the member's valid spec.endpointCIDRs.
	CIDRs []netip.Prefix
	// Reserved are the hub's own ranges, which no member may announce.
	Reserved []netip.Prefix
	// Namespaces are spec.exports.namespaces.
	Namespaces []v1alpha1.NamespacePattern
	// Limits are how many endpoints count.
	Limits Limits
	// Faults name the spec.endpointCIDRs that are ignored, and why.
	Faults []string
}

// Admissions returns the admission of every accepted member, by name. Ranges of
// members must not overlap: if they do, the older MemberCluster (ties by name)
// keeps its range and the other's whole range is ignored. reserved are the hub's
// own pod and Service ranges: a range inside one of them is ignored as well, unless
// the member is the hub's own cluster. The order of the members does not matter.
func Admissions(members []v1alpha1.MemberCluster, reserved []netip.Prefix) map[fleet.ClusterName]Admission {
	byAge := slices.DeleteFunc(slices.Clone(members), func(m v1alpha1.MemberCluster) bool { return !Accepted(&m) })
	slices.SortFunc(byAge, func(a, b v1alpha1.MemberCluster) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	all := map[fleet.ClusterName]Admission{}
	var taken []memberRange
	for _, m := range byAge {
		reserved := reserved
		if m.Spec.Local {
			reserved = nil // they are its own
		}
		a := Admission{Cluster: fleet.ClusterName(m.Name), Reserved: slices.Clone(reserved), Namespaces: m.Spec.Exports.Namespaces, Limits: LimitsOf(&m)}
		for _, text := range m.Spec.EndpointCIDRs {
			cidr, fault := parseRange(text, taken, reserved)
			if fault != "" {
				a.Faults = append(a.Faults, fault)
				continue
			}
			a.CIDRs = append(a.CIDRs, cidr)
		}
		for _, c := range a.CIDRs { // only now: a member's own ranges may overlap
			taken = append(taken, memberRange{cidr: c, cluster: a.Cluster})
		}
		all[a.Cluster] = a
	}
	return all
}

// Accepted tells whether a cluster is a member. A MemberCluster that is being
// deleted is not accepted, whatever finalizers it has.
func Accepted(m *v1alpha1.MemberCluster) bool { return m.Spec.Accepted && m.DeletionTimestamp == nil }

// memberRange is a range of an older member.
type memberRange struct {
	cidr    netip.Prefix
	cluster fleet.ClusterName
}

func parseRange(text string, taken []memberRange, reserved []netip.Prefix) (cidr netip.Prefix, fault string) {
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

// Refuses returns why the member may not announce an address, or "" if it may.
// The text continues a sentence that begins with the address.
func (a Admission) Refuses(address netip.Addr) string {
	if reason := specialAddress(address); reason != "" {
		return reason
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

// specialAddress returns why no CIDR can admit an address: it means something
// else on each machine, or many machines. "": it is an ordinary address.
func specialAddress(address netip.Addr) string {
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
	for _, prefix := range withIPv4 {
		if prefix.Contains(address) {
			return "has an IPv4 address in it (" + prefix.String() + ")"
		}
	}
	return ""
}

// withIPv4 are the ranges of IPv6 whose addresses a router may turn into IPv4 ones, of which
// nobody then asks whose they are. No pod has such an address.
var withIPv4 = []netip.Prefix{
	netip.MustParsePrefix("::/96"),          // IPv4-compatible (RFC 4291 section 2.5.5.1)
	netip.MustParsePrefix("64:ff9b::/96"),   // NAT64 (RFC 6052)
	netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64 of one network (RFC 8215)
	netip.MustParsePrefix("2001::/32"),      // Teredo (RFC 4380)
	netip.MustParsePrefix("2002::/16"),      // 6to4 (RFC 3056)
}

// Admit splits the addresses of EndpointSlices into those that the member may
// announce and, for the others, texts with the address and the reason. Each
// address appears once, in the order of their texts.
func (a Admission) Admit(addresses []string) (admitted []netip.Addr, refused []string) {
	for _, text := range slices.Compact(slices.Sorted(slices.Values(addresses))) {
		address, err := netip.ParseAddr(text)
		if err != nil {
			refused = append(refused, fmt.Sprintf("%q is not an IP address", text))
			continue
		}
		if reason := a.Refuses(address); reason != "" {
			refused = append(refused, text+" "+reason)
			continue
		}
		admitted = append(admitted, address)
	}
	return admitted, refused
}
