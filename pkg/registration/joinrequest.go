package registration

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// MaxCredentialLife is the longest life of an agent's credential.
const MaxCredentialLife = 24 * time.Hour

// minCredentialLife is the shortest that a signer of Kubernetes gives.
const minCredentialLife = 10 * time.Minute

const (
	maxProposedCIDRs = 32
	minRSABits       = 2048
)

// JoinRequest is a CertificateSigningRequest of an agent, or of somebody with a join token.
type JoinRequest struct {
	Name    string
	Created time.Time // by the hub's clock
	// Cluster is the member that its requester may ask for.
	Cluster fleet.ClusterName
	// Renews is the ID of the credential that asks; empty: a join account asks.
	Renews string
	// Account and AccountUID are those of the join account that asks.
	Account, AccountUID string

	// ID is that of the credential that it asks for.
	ID string
	// ClusterUID, EndpointCIDRs and AgentTime are the requester's word.
	ClusterUID    string
	EndpointCIDRs []string
	AgentTime     time.Time

	// Fault says why it can only be denied. ID may then be empty.
	Fault string
	// Decided says that it was approved or denied, and when.
	Decided, Denied bool
	DecidedAt       time.Time
	// ExpirationTime is the end of the certificate that was issued; zero: none was.
	ExpirationTime time.Time
}

// MemberOfRequester returns the member that the requester of a CSR may ask for. ok is
// false for the CSRs of others, and for other signers: they are not decided here.
func MemberOfRequester(csr *certificatesv1.CertificateSigningRequest) (cluster fleet.ClusterName, ok bool) {
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return "", false
	}
	if cluster, _, ok = ParseMemberUser(csr.Spec.Username); ok {
		return cluster, true
	}
	if !strings.HasPrefix(csr.Spec.Username, accountUserPrefix) {
		return "", false
	}
	cluster, _, ok = ParseMemberJoinUser(csr.Spec.Username)
	return cluster, ok
}

// ReadJoinRequest reads a CSR. ok is false for one that is not decided here.
func ReadJoinRequest(csr *certificatesv1.CertificateSigningRequest) (r JoinRequest, ok bool) {
	r = JoinRequest{Name: csr.Name, Created: csr.CreationTimestamp.Time}
	if r.Cluster, ok = MemberOfRequester(csr); !ok {
		return r, false
	}
	if _, id, isMember := ParseMemberUser(csr.Spec.Username); isMember {
		r.Renews = id
	} else {
		r.Account, r.AccountUID = strings.TrimPrefix(csr.Spec.Username, accountUserPrefix), csr.Spec.UID
	}
	for _, c := range csr.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied:
			r.Decided, r.Denied, r.DecidedAt = true, r.Denied || c.Type == certificatesv1.CertificateDenied, c.LastUpdateTime.Time
		case certificatesv1.CertificateFailed:
		}
	}
	r.ExpirationTime, _ = CertificateEnd(csr.Status.Certificate)
	r.Fault = r.read(csr)
	return r, true
}

var clusterUIDPattern = regexp.MustCompile(`^[0-9a-zA-Z-]{1,64}$`)

// read fills in what the requester chose, and returns what is wrong with it.
func (r *JoinRequest) read(csr *certificatesv1.CertificateSigningRequest) (fault string) {
	if fault := r.readSubject(csr.Spec.Request); fault != "" {
		return fault
	}
	r.ClusterUID = csr.Annotations[v1alpha1.AnnotationClusterUID]
	life := time.Duration(0)
	if csr.Spec.ExpirationSeconds != nil {
		life = time.Duration(*csr.Spec.ExpirationSeconds) * time.Second
	}
	switch allowed := []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}; {
	case life < minCredentialLife || life > MaxCredentialLife:
		return fmt.Sprintf("spec.expirationSeconds is not between %d and %d", int(minCredentialLife.Seconds()), int(MaxCredentialLife.Seconds()))
	case !slices.Contains(csr.Spec.Usages, certificatesv1.UsageClientAuth),
		slices.ContainsFunc(csr.Spec.Usages, func(u certificatesv1.KeyUsage) bool { return !slices.Contains(allowed, u) }):
		return "spec.usages is not [client auth, digital signature]"
	case !clusterUIDPattern.MatchString(r.ClusterUID):
		return fmt.Sprintf("annotation %s is not the UID of a cluster", v1alpha1.AnnotationClusterUID)
	}
	if text, given := csr.Annotations[v1alpha1.AnnotationAgentTime]; given {
		var err error
		if r.AgentTime, err = time.Parse(time.RFC3339, text); err != nil {
			return fmt.Sprintf("annotation %s is not a time (RFC 3339)", v1alpha1.AnnotationAgentTime)
		}
	}
	for text := range strings.SplitSeq(csr.Annotations[v1alpha1.AnnotationEndpointCIDRs], ",") {
		if text == "" {
			continue
		}
		cidr, err := netip.ParsePrefix(text)
		if err != nil || len(r.EndpointCIDRs) == maxProposedCIDRs {
			return fmt.Sprintf("annotation %s is not a list of at most %d CIDRs", v1alpha1.AnnotationEndpointCIDRs, maxProposedCIDRs)
		}
		if text = cidr.Masked().String(); !slices.Contains(r.EndpointCIDRs, text) {
			r.EndpointCIDRs = append(r.EndpointCIDRs, text)
		}
	}
	return ""
}

// readSubject reads the ID from the user name that a request is for, and returns what
// else it asks for that it must not.
func (r *JoinRequest) readSubject(text []byte) (fault string) {
	block, rest := pem.Decode(text)
	if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
		return "spec.request is not one PEM block"
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || request.CheckSignature() != nil {
		return "spec.request is no certificate request that its key signed"
	}
	cluster, id, ok := ParseMemberUser(request.Subject.CommonName)
	switch {
	case !ok || request.Subject.CommonName != MemberUser(cluster, id):
		return fmt.Sprintf("the common name is not %s<MemberCluster>:<10 lower case letters and digits>", v1alpha1.MemberUserPrefix)
	case cluster != r.Cluster:
		return fmt.Sprintf("the token is for MemberCluster %q, and the request for %q", r.Cluster, cluster)
	case len(request.Subject.Names) != 2 || !slices.Equal(request.Subject.Organization, []string{v1alpha1.MembersGroup}):
		return fmt.Sprintf("the subject has other parts than a common name and the organization %s", v1alpha1.MembersGroup)
	case len(request.DNSNames)+len(request.EmailAddresses)+len(request.IPAddresses)+len(request.URIs)+len(request.Extensions) > 0:
		return "the request has subject alternative names or other extensions"
	case !strongKey(request.PublicKey):
		return fmt.Sprintf("the key is neither ECDSA nor Ed25519 nor RSA of at least %d bits", minRSABits)
	}
	r.ID = id
	return ""
}

func strongKey(key any) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return key.Curve.Params().BitSize >= 256
	case ed25519.PublicKey:
		return true
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSABits
	}
	return false
}

func timeOf(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }
