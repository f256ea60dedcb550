package membership

import (
	"crypto/x509"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"crossway.dev/crossway/pkg/fleet"
)

// Name is the name of a node: "member:<MemberCluster>" or "hub:<pod>". It has no
// slash, because memberlist.Join takes what is before one for a name of its own.
type Name string

const (
	memberPrefix = "member:"
	hubPrefix    = "hub:"
	// hubURI and memberURI are the identities of certificates (SPIFFE IDs).
	hubURI    = "spiffe://crossway/hub"
	memberURI = "spiffe://crossway/member/"
)

// Member is the name of a member's agent.
func Member(cluster fleet.ClusterName) Name { return Name(memberPrefix + string(cluster)) }

// Replica is the name of a replica of the hub: that of its pod.
func Replica(pod string) Name { return Name(hubPrefix + pod) }

// IsHub is whether the node is a replica of the hub.
func (n Name) IsHub() bool { return strings.HasPrefix(string(n), hubPrefix) }

// Cluster is the member that the node is the agent of; false for a replica of the hub.
func (n Name) Cluster() (fleet.ClusterName, bool) {
	cluster, ok := strings.CutPrefix(string(n), memberPrefix)
	return fleet.ClusterName(cluster), ok
}

// Check returns what is wrong with a name that came from another node.
func (n Name) Check() error {
	pod, isHub := strings.CutPrefix(string(n), hubPrefix)
	cluster, isMember := n.Cluster()
	switch {
	case isHub && len(validation.IsDNS1123Subdomain(pod)) == 0, isMember && len(validation.IsDNS1123Label(string(cluster))) == 0:
		return nil
	}
	return fmt.Errorf("%q is not the name of a node: member:<MemberCluster> or hub:<pod>", string(n))
}

// URI is the identity that the node's certificate has as its only URI SAN.
func (n Name) URI() string {
	if cluster, ok := n.Cluster(); ok {
		return memberURI + string(cluster)
	}
	return hubURI + "/" + strings.TrimPrefix(string(n), hubPrefix)
}

// CheckCertificate returns why a certificate does not speak for a name; its chain was
// verified by the caller. Replicas of the hub share a certificate, spiffe://crossway/hub,
// which speaks for each of them and for no member.
func (n Name) CheckCertificate(leaf *x509.Certificate) error {
	if err := n.Check(); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 {
		return fmt.Errorf("certificate of %q has %d URI SANs, a node's has exactly one", leaf.Subject.CommonName, len(leaf.URIs))
	}
	if uri := leaf.URIs[0].String(); uri != n.URI() && (uri != hubURI || !n.IsHub()) {
		return fmt.Errorf("certificate of %s does not speak for %s", uri, n)
	}
	return nil
}
