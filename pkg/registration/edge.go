package registration

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/membership"
)

// EdgeIdentity is the identity of an edge. Its pool, region and zone are the only
// URI SAN of the edge's client certificate, spiffe://crossway/edge/<pool>/<region>/<zone>.
type EdgeIdentity struct {
	Pool, Region, Zone string
	// PoolUID is the UID of the EdgePool: a pool that is made again under a name that
	// was let go does not let the keys of the former one in. It is the subject's OU.
	PoolUID string
	// Credential is the ID of what one joining gave out, which renewed certificates
	// keep. It is the subject's serialNumber.
	Credential string
}

// AnnotationRestoredFrom of an EdgePool that was restored from a backup, and so has
// another UID, names the UID that it had: certificates of that one are let in, too.
const AnnotationRestoredFrom = "crossway.dev/restored-from"

// String returns the identity's URI.
func (e EdgeIdentity) String() string {
	return "spiffe://" + membership.TrustDomain + "/edge/" + e.Pool + "/" + e.Region + "/" + e.Zone
}

// Validate returns an error for a part of the URI that is not a DNS label, as the
// names of EdgePools and regions are: 1 to 63 lower case letters, digits and '-',
// neither first nor last a '-'.
func (e EdgeIdentity) Validate() error {
	for _, part := range []struct{ name, value string }{{"pool", e.Pool}, {"region", e.Region}, {"zone", e.Zone}} {
		if len(validation.IsDNS1123Label(part.value)) > 0 {
			return fmt.Errorf("%s %q of an edge: use 1 to 63 lower case letters, digits and '-'", part.name, part.value)
		}
	}
	return nil
}

// ParseEdgeIdentity reads an identity URI. It accepts only the exact form that
// EdgeIdentity.String returns: no other scheme or trust domain, no port, query,
// fragment or escape.
func ParseEdgeIdentity(uri string) (EdgeIdentity, error) {
	parts := strings.Split(uri, "/")
	if len(parts) != 7 {
		return EdgeIdentity{}, fmt.Errorf("identity %q is not spiffe://%s/edge/<pool>/<region>/<zone>", uri, membership.TrustDomain)
	}
	id := EdgeIdentity{Pool: parts[4], Region: parts[5], Zone: parts[6]}
	if id.String() != uri {
		return EdgeIdentity{}, fmt.Errorf("identity %q is not spiffe://%s/edge/<pool>/<region>/<zone>", uri, membership.TrustDomain)
	}
	if err := id.Validate(); err != nil {
		return EdgeIdentity{}, fmt.Errorf("identity %q: %w", uri, err)
	}
	return id, nil
}

// EdgeIdentityOf reads the identity of a client certificate whose chain to the
// edge CA the caller has verified. A certificate with several URI SANs or with
// none has no identity (SPIFFE X.509-SVID, section 2).
func EdgeIdentityOf(certificate *x509.Certificate) (EdgeIdentity, error) {
	if len(certificate.URIs) != 1 {
		return EdgeIdentity{}, fmt.Errorf("certificate of %q has %d URI SANs, an edge's has exactly one", certificate.Subject.CommonName, len(certificate.URIs))
	}
	id, err := ParseEdgeIdentity(certificate.URIs[0].String())
	if err != nil {
		return EdgeIdentity{}, err
	}
	id.Credential = certificate.Subject.SerialNumber
	if units := certificate.Subject.OrganizationalUnit; len(units) == 1 {
		id.PoolUID = units[0]
	}
	return id, nil
}

// CheckEdge returns why an edge is not let in, nil if it is: its pool does not exist,
// is in another region, or is another one of that name, or its credential is revoked.
// The error says what to do.
func CheckEdge(id EdgeIdentity, pools []v1alpha1.EdgePool) error {
	pool, err := PoolOfEdge(id, pools)
	if err != nil {
		return err
	}
	again := fmt.Sprintf("; join again with a new token: crossway token create --edge %s --zone %s", id.Pool, id.Zone)
	switch {
	case !idPattern.MatchString(id.Credential):
		return fmt.Errorf("the certificate has no ID of a credential, so that nobody could revoke it%s", again)
	case id.PoolUID != string(pool.UID) && (id.PoolUID == "" || id.PoolUID != pool.Annotations[AnnotationRestoredFrom]):
		return fmt.Errorf("the certificate is of an earlier EdgePool %q (UID %q, not %q)%s; if the pool was restored from a backup, annotate it with %s=%s",
			id.Pool, id.PoolUID, pool.UID, again, AnnotationRestoredFrom, id.PoolUID)
	case slices.Contains(pool.Spec.RevokedCredentials, id.Credential):
		return fmt.Errorf("credential %s is revoked (spec.revokedCredentials of EdgePool %q)%s", id.Credential, id.Pool, again)
	}
	return nil
}

// PoolOfEdge is the pool of an edge that is to get a certificate. The error says what
// to do if there is none in its region.
func PoolOfEdge(id EdgeIdentity, pools []v1alpha1.EdgePool) (*v1alpha1.EdgePool, error) {
	i := slices.IndexFunc(pools, func(p v1alpha1.EdgePool) bool { return p.Name == id.Pool })
	if i < 0 {
		return nil, fmt.Errorf("EdgePool %q does not exist; create it with region %q, or name one that exists (%s)", id.Pool, id.Region, poolNames(pools))
	}
	if region := pools[i].Spec.Region; region != id.Region {
		return nil, fmt.Errorf("EdgePool %q is in region %q, not %q; sign a certificate for region %[2]q, or name a pool of region %[3]q", id.Pool, region, id.Region)
	}
	return &pools[i], nil
}

func poolNames(pools []v1alpha1.EdgePool) string {
	if len(pools) == 0 {
		return "there is none"
	}
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (e EdgeIdentity) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: membership.TrustDomain, Path: "/edge/" + e.Pool + "/" + e.Region + "/" + e.Zone}
}
