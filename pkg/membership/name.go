package membership

import (
	"crypto/x509"
	"fmt"
	"net/url"
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

	// TrustDomain is the host of every identity URI in certificates of Crossway (SPIFFE ID, section 2).
	TrustDomain = "crossway"

	memberPath, hubPath = "/member/", "/hub/" // of the URI in a certificate
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

// Pod is the pod of a replica of the hub.
func (n Name) Pod() string { return strings.TrimPrefix(string(n), hubPrefix) }

// URI is the identity that the node's certificate has as its only URI SAN (a SPIFFE ID).
func (n Name) URI() *url.URL {
	path := hubPath + n.Pod()
	if cluster, ok := n.Cluster(); ok {
		path = memberPath + string(cluster)
	}
	return &url.URL{Scheme: "spiffe", Host: TrustDomain, Path: path}
}

// NameOf is the name that a certificate speaks for; its chain was verified by the caller.
// Only the exact form of the URI counts.
func NameOf(leaf *x509.Certificate) (Name, error) {
	if len(leaf.URIs) != 1 {
		return "", fmt.Errorf("certificate of %q has %d URI SANs, a node's has exactly one", leaf.Subject.CommonName, len(leaf.URIs))
	}
	uri := leaf.URIs[0]
	name := Replica(strings.TrimPrefix(uri.Path, hubPath))
	if cluster, ok := strings.CutPrefix(uri.Path, memberPath); ok {
		name = Member(fleet.ClusterName(cluster))
	}
	if name.Check() != nil || name.URI().String() != uri.String() {
		return "", fmt.Errorf("identity %q is not spiffe://%s/member/<MemberCluster> or spiffe://%[2]s/hub/<pod>", uri, TrustDomain)
	}
	return name, nil
}
