package hub

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
)

// MemberCA reads the CA of gossip in a namespace.
func MemberCA(ctx context.Context, c client.Reader, namespace string) (registration.CA, error) {
	var secret corev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: registration.MemberCASecret}, &secret); err != nil {
		return registration.CA{}, fmt.Errorf("read the CA of gossip: %w", err)
	}
	ca := registration.CAOf(secret.Data)
	if err := ca.Check(); err != nil {
		return registration.CA{}, fmt.Errorf("CA of gossip: %w", err)
	}
	return ca, nil
}

// SignGossip signs with the CA of gossip in a namespace what an agent asks for. The answer
// is PEM: the certificate, what is sent with it, and the CAs that nodes trust.
func SignGossip(ctx context.Context, c client.Reader, namespace string, r GossipRequest) ([]byte, error) {
	ca, err := MemberCA(ctx, c, namespace)
	if err != nil {
		return nil, err
	}
	signed, err := registration.SignGossipRequest(ca.Issuer(r.Now, rand.Reader), r.Identity, r.Request, r.CredentialEnd)
	if err != nil {
		return nil, err
	}
	return slices.Concat(signed, ca.Bundle()), nil
}

// GossipRequest is what an agent asks for.
type GossipRequest struct {
	Identity           registration.GossipIdentity // of who asks
	Request            []byte                      // PKCS #10
	CredentialEnd, Now time.Time
}
