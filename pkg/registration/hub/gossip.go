package hub

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
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

// ReplicaTLS is what a replica of the hub gossips with: a certificate that it signs itself
// with the CA in the cache, in memory, and the CAs that it trusts.
type ReplicaTLS struct {
	Reader    client.Reader
	Namespace string // of the CA
	Replica   string // name of this pod

	mu     sync.Mutex // guards the rest
	signer string     // name of the CA that signed
	pair   *tls.Certificate
}

// Certificate is that of the next handshake.
func (r *ReplicaTLS) Certificate() (*tls.Certificate, error) {
	ca, err := MemberCA(context.Background(), r.Reader, r.Namespace)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.pair != nil && r.signer == ca.Name() && isYoung(r.pair.Leaf, now) {
		return r.pair, nil
	}
	made, err := registration.NewReplicaCertificate(ca.Issuer(now, rand.Reader), r.Replica)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(made.Certificate, made.Key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of replica %s: %w", r.Replica, err)
	}
	r.signer, r.pair = ca.Name(), &pair
	return r.pair, nil
}

// isYoung says that a certificate is valid and was signed not long ago, by the times in it.
// Those are what others look at. What a process counts does not show that the clock was
// set, or that the machine slept.
func isYoung(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(registration.SignedAt(c).Add(registration.MaxMemberLife/3))
}

// Roots are the CAs of gossip; none while there is no CA.
func (r *ReplicaTLS) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	if ca, err := MemberCA(context.Background(), r.Reader, r.Namespace); err == nil {
		pool.AppendCertsFromPEM(ca.Bundle())
	}
	return pool
}
