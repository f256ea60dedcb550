package registration

import (
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

const (
	// EdgeSigner is the signerName of the requests of edges that join. The hub's leader
	// approves and signs them.
	EdgeSigner = "crossway.dev/edge"

	// RenewalService and RenewalMethod are the method of the hub's xDS port by which edges
	// renew their certificates (gRPC). Its messages are google.protobuf.BytesValue: a PKCS
	// #10 request, or nothing; and what SplitIssued divides.
	RenewalService = "crossway.edge.v1.Certificates"
	RenewalMethod  = "Renew"

	// LabelEdgePool marks the Secrets with an edge's certificate: its value is the pool.
	LabelEdgePool = "crossway.dev/edge-pool"
)

// EdgeRequestName is the name of the one request that a join token of edges makes.
func EdgeRequestName(pool, id string) string { return "crossway-edge-" + pool + "-" + id }

// EdgeSecretName is the name of the Secret that charts/edge mounts by default.
func EdgeSecretName(pool string) string { return "crossway-edge-" + pool }

// EdgeSecretData is the data of that Secret: a key, and what the hub answered to the
// request for its certificate.
func EdgeSecretData(key, answer []byte) (map[string][]byte, error) {
	chain, bundle, err := SplitIssued(answer)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("the hub's answer has no certificate of an edge")
	}
	return map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key, CAKey: bundle}, nil
}

// EdgeOfRequest is who gets a certificate by a request of a join token of edges; denied is
// set for nobody. account is the token's, nil if there is none any more. The credential has
// the token's ID: who revokes the one revokes the other.
func EdgeOfRequest(csr *certificatesv1.CertificateSigningRequest, account *corev1.ServiceAccount, pools []v1alpha1.EdgePool, now time.Time) (edge EdgeIdentity, denied *condition.Condition) {
	deny := func(c condition.Condition) (EdgeIdentity, *condition.Condition) { return EdgeIdentity{}, &c }
	name, id, ok := ParseEdgeJoinUser(csr.Spec.Username)
	if !ok {
		return deny(condition.EdgeJoinMalformed("<pool>", "edges join with a token of their own"))
	}
	i := slices.IndexFunc(pools, func(p v1alpha1.EdgePool) bool { return p.Name == name })
	switch {
	case i < 0:
		return deny(condition.EdgeJoinWithoutPool(name))
	case account == nil || !MadeFor(account, &pools[i]) || !now.Before(TokenEnds(account)):
		return deny(condition.EdgeJoinTokenEnded(name))
	case csr.Name != EdgeRequestName(name, id):
		return deny(condition.EdgeJoinMalformed(name, fmt.Sprintf("a join token makes one request, %s", EdgeRequestName(name, id))))
	case EdgeRequestOf(account) != "" && EdgeRequestOf(account) != csr.UID:
		return deny(condition.EdgeJoinTokenUsed(name, id))
	case slices.Contains(pools[i].Spec.RevokedCredentials, id):
		return deny(condition.EdgeJoinRevoked(name, id))
	}
	edge = EdgeIdentity{Pool: name, Region: pools[i].Spec.Region, Zone: account.Annotations[v1alpha1.AnnotationZone], PoolUID: string(pools[i].UID), Credential: id}
	err := edge.Validate()
	if err == nil {
		_, err = requestedKey(csr.Spec.Request)
	}
	if err != nil {
		return deny(condition.EdgeJoinMalformed(name, err.Error()))
	}
	return edge, nil
}

// EdgeRequestOf is the UID of the request that got a certificate by a join token; "": none
// did. The request may be gone, and its name free again.
func EdgeRequestOf(account *corev1.ServiceAccount) types.UID {
	return types.UID(account.Annotations[v1alpha1.AnnotationEdgeRequest])
}

// EdgeLife is for how long a request's certificate is valid: as it asks, and no longer
// than edges' certificates are by default.
func EdgeLife(csr *certificatesv1.CertificateSigningRequest) time.Duration {
	if s := csr.Spec.ExpirationSeconds; s != nil && *s > 0 {
		return min(DefaultEdgeLife, time.Duration(*s)*time.Second)
	}
	return DefaultEdgeLife
}
