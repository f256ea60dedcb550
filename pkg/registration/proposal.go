package registration

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// widestProposal is the shortest prefix, of each family, that is proposed: nodes whose
// ranges have less in common have none that an admin should accept unseen.
var widestProposal = map[bool]int{true: 8, false: 32} // by whether it is IPv4

// ProposedCIDRs are the ranges that a cluster proposes for its endpointCIDRs: of each
// family the smallest with the pod ranges of all its nodes.
func ProposedCIDRs(nodes []corev1.Node) []string {
	covers := map[bool]netip.Prefix{}
	for i := range nodes {
		for _, text := range nodes[i].Spec.PodCIDRs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				is4 := prefix.Addr().Is4()
				covers[is4] = covering(covers[is4], prefix.Masked())
			}
		}
	}
	var proposed []string
	for _, is4 := range []bool{true, false} {
		if cover := covers[is4]; cover.IsValid() && cover.Bits() >= widestProposal[is4] {
			proposed = append(proposed, cover.String())
		}
	}
	return proposed
}

// covering is the smallest prefix with both in it; the first may be none.
func covering(a, b netip.Prefix) netip.Prefix {
	if !a.IsValid() {
		return b
	}
	for bits := min(a.Bits(), b.Bits()); bits > 0; bits-- {
		if cover, err := a.Addr().Prefix(bits); err == nil && cover.Contains(b.Addr()) {
			return cover
		}
	}
	return netip.PrefixFrom(a.Addr(), 0).Masked()
}
