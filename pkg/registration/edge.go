package registration

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"crossway.dev/crossway/api/v1alpha1"
)

// EdgeTrustDomain is the host of every edge's identity URI (SPIFFE ID, section 2).
const EdgeTrustDomain = "crossway"

// EdgeIdentity is the identity of an edge: its pool, region and zone. It is the
// only URI SAN of the edge's client certificate,
// spiffe://crossway/edge/<pool>/<region>/<zone>.
type EdgeIdentity struct {
	Pool, Region, Zone string
}

// String returns the identity's URI.
func (e EdgeIdentity) String() string {
	return "spiffe://" + EdgeTrustDomain + "/edge/" + e.Pool + "/" + e.Region + "/" + e.Zone
}

// Validate returns an error for a part that is not a DNS label, as the names of
// EdgePools and regions are: 1 to 63 lower case letters, digits and '-', neither
// first nor last a '-'.
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
		return EdgeIdentity{}, fmt.Errorf("identity %q is not spiffe://%s/edge/<pool>/<region>/<zone>", uri, EdgeTrustDomain)
	}
	id := EdgeIdentity{Pool: parts[4], Region: parts[5], Zone: parts[6]}
	if id.String() != uri {
		return EdgeIdentity{}, fmt.Errorf("identity %q is not spiffe://%s/edge/<pool>/<region>/<zone>", uri, EdgeTrustDomain)
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
	return ParseEdgeIdentity(certificate.URIs[0].String())
}

// CheckEdge returns an error for an identity whose pool does not exist or is in
// another region. The error says what to do.
func CheckEdge(id EdgeIdentity, pools []v1alpha1.EdgePool) error {
	i := slices.IndexFunc(pools, func(p v1alpha1.EdgePool) bool { return p.Name == id.Pool })
	if i < 0 {
		return fmt.Errorf("EdgePool %q does not exist; create it with region %q, or name one that exists (%s)", id.Pool, id.Region, poolNames(pools))
	}
	if region := pools[i].Spec.Region; region != id.Region {
		return fmt.Errorf("EdgePool %q is in region %q, not %q; sign a certificate for region %[2]q, or name a pool of region %[3]q", id.Pool, region, id.Region)
	}
	return nil
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
	return &url.URL{Scheme: "spiffe", Host: EdgeTrustDomain, Path: "/edge/" + e.Pool + "/" + e.Region + "/" + e.Zone}
}
