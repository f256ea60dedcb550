package registration

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
)

const (
	// MemberCASecret holds the CA of gossip, as CA.Data has it. It is not the edge CA: an
	// edge's port lends out the TLS keys of Gateways, and a certificate of gossip does not
	// even end a handshake there.
	MemberCASecret = "crossway-member-ca"
	// MemberCALife is how long the CA of gossip is valid. The hub rotates it when a third
	// of that is left.
	MemberCALife = 365 * 24 * time.Hour
	// MaxMemberLife is how long a certificate for gossip is valid at most.
	MaxMemberLife = 24 * time.Hour
)

// GossipIdentity is who a node of gossip is: a member's agent, or a replica of the hub. It
// is the only URI SAN of its certificate, spiffe://crossway/member/<name> or
// spiffe://crossway/hub/<replica>.
type GossipIdentity struct {
	Member fleet.ClusterName
	// Credential is the ID of the member's credential that the certificate was given for,
	// the subject's serialNumber.
	Credential string
	Replica    string // name of the hub's pod; "": a member's
}

// String is member/<name> or hub/<replica>.
func (g GossipIdentity) String() string {
	if g.Replica != "" {
		return "hub/" + g.Replica
	}
	return "member/" + string(g.Member)
}

// GossipIdentityOf reads the identity of a certificate whose chain to the CA of gossip the
// caller has verified.
func GossipIdentityOf(certificate *x509.Certificate) (GossipIdentity, error) {
	name, err := membership.NameOf(certificate)
	if err != nil {
		return GossipIdentity{}, err
	}
	id := GossipIdentity{Credential: certificate.Subject.SerialNumber}
	if member, ok := name.Cluster(); ok {
		id.Member = member
	} else {
		id.Replica = name.Pod()
	}
	return id, id.validate()
}

func (g GossipIdentity) name() membership.Name {
	if g.Replica != "" {
		return membership.Replica(g.Replica)
	}
	return membership.Member(g.Member)
}

func (g GossipIdentity) validate() error {
	if err := g.name().Check(); err != nil {
		return err
	}
	if g.Replica == "" && !idPattern.MatchString(g.Credential) {
		return fmt.Errorf("credential %q of member %s: it has no ID", g.Credential, g.Member)
	}
	return nil
}

// CheckGossip returns why the agent of a member is not let in, nil if it is. A nil member:
// there is no such MemberCluster.
func CheckGossip(id GossipIdentity, member *v1alpha1.MemberCluster) error {
	if member == nil || !Accepted(member) {
		return fmt.Errorf("MemberCluster %q does not exist or is not accepted", id.Member)
	}
	if c := InForce(member); c == nil || c.ID != id.Credential {
		return fmt.Errorf("credential %s is not that which MemberCluster %q is let in with", id.Credential, id.Member)
	}
	return nil
}

// SignGossipRequest signs what an agent asks for by a certificate request (PKCS #10), of
// which only the public key counts. The certificate ends with the agent's credential, and
// a day from now at the latest. The result is PEM: the certificate and the issuer's chain.
func SignGossipRequest(issuer Issuer, id GossipIdentity, request []byte, credentialEnd time.Time) ([]byte, error) {
	if err := id.validate(); err != nil {
		return nil, err
	}
	life := min(MaxMemberLife, credentialEnd.Sub(issuer.Now))
	if life <= 0 {
		return nil, errors.New("the credential has ended, or does not say when it ends")
	}
	key, err := requestedKey(request)
	if err != nil {
		return nil, err
	}
	return issuer.certify(key, id.String(), life, id.fill)
}

// NewGossipRequest makes a key and a request for its certificate (PEM), which names nobody.
func NewGossipRequest(random io.Reader) (key, request []byte, err error) {
	return newRequest(random, "crossway-gossip")
}

// NewReplicaCertificate signs the certificate for gossip of a replica of the hub.
func NewReplicaCertificate(issuer Issuer, replica string) (Pair, error) {
	id := GossipIdentity{Replica: replica}
	if err := id.validate(); err != nil {
		return Pair{}, err
	}
	return issuer.issue(id.String(), MaxMemberLife, id.fill)
}

// fill has both sides of a connection use the certificate: every node dials and listens.
func (g GossipIdentity) fill(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	c.URIs = []*url.URL{g.name().URI()}
	c.Subject.SerialNumber = g.Credential
}

// NextMemberCA takes the next step in the life of the CA of gossip. One that is missing,
// damaged or has ended is made anew: whoever has a certificate of the former asks for another.
func NextMemberCA(ca CA, now time.Time, random io.Reader) (Rotated, error) {
	end, readable := CertificateEnd(ca.Certificate)
	if ca.damaged() || !readable || !now.Before(end) {
		pair, err := MemberCA.new(now, random)
		return Rotated{CA: CA{Pair: pair}, Changed: err == nil, Note: "made anew"}, err
	}
	step := Rotation{Kind: MemberCA, Now: now, Random: random}
	if len(ca.Next.Certificate) == 0 && len(ca.Old) == 0 && end.Sub(now) < MemberCALife/3 {
		step.Request = RotateStart
	}
	return ca.Rotate(step)
}

// damaged says that a part of the CA which is there cannot be read.
func (ca CA) damaged() bool {
	return ca.Check() != nil || len(ca.Next.Certificate) > 0 && CA{Pair: ca.Next}.Check() != nil ||
		len(ca.Old) > 0 && firstCertificate(ca.Old) == nil || len(ca.Cross) > 0 && firstCertificate(ca.Cross) == nil
}

// GossipMember is a member whose agent may gossip, with the ID of the credential that it
// must have.
type GossipMember struct {
	Name       fleet.ClusterName `json:"name"`
	Credential string            `json:"credential"`
}

// GossipMembers are all of them, by name.
func GossipMembers(members []v1alpha1.MemberCluster) []GossipMember {
	all := []GossipMember{}
	for i := range members {
		if c := InForce(&members[i]); c != nil {
			all = append(all, GossipMember{Name: fleet.ClusterName(members[i].Name), Credential: c.ID})
		}
	}
	slices.SortFunc(all, func(a, b GossipMember) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}

// MayGossip says whether a node is let in by who knows these members. Whoever has a
// certificate of a replica of the hub is: the hub alone makes those.
func MayGossip(id GossipIdentity, members []GossipMember) bool {
	return id.Replica != "" || slices.Contains(members, GossipMember{Name: id.Member, Credential: id.Credential})
}
