package registration

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A cluster proposes the smallest ranges that its nodes' pods are in.
func TestProposedCIDRs(t *testing.T) {
	for nodes, want := range map[string]string{
		"":                          "",
		"10.1.0.0/24":               "10.1.0.0/24",
		"10.1.0.0/24;10.1.1.0/24":   "10.1.0.0/23",
		"10.1.0.0/24;10.1.255.0/24": "10.1.0.0/16",
		"10.1.0.0/24,fd00:1::/64;10.1.3.0/24,fd00:1:0:1::/64": "10.1.0.0/22 fd00:1::/63",
		"10.0.0.0/16;10.0.3.0/24":                             "10.0.0.0/16",
		"10.1.0.0/24;192.168.0.0/24":                          "",
		"nonsense;10.1.0.0/24":                                "10.1.0.0/24",
	} {
		var list []corev1.Node
		for node := range strings.SplitSeq(nodes, ";") {
			list = append(list, corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: strings.Split(node, ",")}})
		}
		if got := strings.Join(ProposedCIDRs(list), " "); got != want {
			t.Errorf("%s: proposes %q, want %q", nodes, got, want)
		}
	}
}
