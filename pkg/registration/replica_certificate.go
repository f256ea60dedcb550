package registration

import (
	"crypto/x509"
	"fmt"
	"net/url"

	"crossway.dev/crossway/pkg/membership"
)

const (
	// ReplicaIdentity is the only URI SAN of the certificate of the hub's replicas. It has
	// the form of no edge's identity, and so opens no stream of an edge.
	ReplicaIdentity = "spiffe://" + membership.TrustDomain + "/hub"
	// ReplicaServerName is its DNS name, which a replica that dials another asks for.
	ReplicaServerName = "crossway-hub-replicas"
)

// NewHubReplicaCertificate signs the certificate of the hub's replicas, for both ends of
// their connections.
func NewHubReplicaCertificate(issuer Issuer) (Pair, error) {
	identity, err := url.Parse(ReplicaIdentity)
	if err != nil {
		return Pair{}, fmt.Errorf("identity of replicas: %w", err)
	}
	return issuer.issue("crossway-hub-replica", ServerLife, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		c.DNSNames = []string{ReplicaServerName}
		c.URIs = []*url.URL{identity}
	})
}

// HubReplicaCertificateFault returns why the hub should sign a new certificate of its
// replicas. "": no reason.
func HubReplicaCertificateFault(issuer Issuer, pair Pair) string {
	if fault := ServerCertificateFault(issuer, pair, []string{ReplicaServerName}); fault != "" {
		return fault
	}
	leaf, _, err := parsePair(pair)
	if err != nil {
		return err.Error()
	}
	if err := CheckReplica(leaf); err != nil {
		return err.Error()
	}
	return ""
}

// CheckReplica returns why a certificate whose chain to the edge CA was verified is no
// replica's: the same CA signs the certificates of edges.
func CheckReplica(certificate *x509.Certificate) error {
	if uris := certificate.URIs; len(uris) != 1 || uris[0].String() != ReplicaIdentity {
		return fmt.Errorf("the certificate of %q is not that of the hub's replicas (%s)", certificate.Subject.CommonName, ReplicaIdentity)
	}
	return nil
}
