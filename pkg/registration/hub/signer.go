package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
)

// Signer makes the edge CA and the xDS serving certificate if they are missing, and
// a new serving certificate before it expires. It is a Runnable of the leader,
// which may be started again. It never replaces an existing edge CA.
type Signer struct {
	Client client.Client
	// Live reads past the cache, which may lack what was just made.
	Live client.Reader
	// Namespace is that of both Secrets.
	Namespace string
	// Names are the DNS names and addresses in the serving certificate.
	Names []string
	Log   logr.Logger
}

// Start checks the certificates each hour, and soon again after a failure.
func (s *Signer) Start(ctx context.Context) error {
	for {
		next := time.Hour
		if err := s.ensure(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error(err, "could not make certificates")
			next = 5 * time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

func (s *Signer) ensure(ctx context.Context) error {
	ca, err := s.ensureCA(ctx)
	if err != nil {
		return err
	}
	issuer := registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}
	secret := s.secret(registration.XDSSecret)
	err = s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", registration.XDSSecret, err)
	}
	missing := err != nil
	fault := registration.ServerCertificateFault(issuer, pairOf(secret), s.Names)
	signed := fault == "" && string(secret.Data[registration.CAKey]) == string(ca.Certificate)
	versionKey := secret.Data[registration.VersionKey]
	if signed && len(versionKey) >= registration.VersionKeyLength {
		return nil
	}
	if len(versionKey) < registration.VersionKeyLength {
		versionKey = registration.NewVersionKey()
	}
	server := pairOf(secret)
	if !signed {
		if server, err = registration.NewServerCertificate(issuer, s.Names); err != nil {
			return err
		}
	}
	fill(secret, server)
	secret.Data[registration.CAKey], secret.Data[registration.VersionKey] = ca.Certificate, versionKey
	if missing {
		err = s.Client.Create(ctx, secret)
	} else {
		s.Log.Info("renewed the Secret of the xDS serving certificate", "reason", cmp.Or(fault, "no CA, or no key for versions, or another one"))
		err = s.Client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", registration.XDSSecret, err)
	}
	return nil
}

func (s *Signer) ensureCA(ctx context.Context) (registration.Pair, error) {
	secret := s.secret(registration.EdgeCASecret)
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err == nil {
		return pairOf(secret), nil
	}
	if !apierrors.IsNotFound(err) {
		return registration.Pair{}, fmt.Errorf("read Secret %s: %w", registration.EdgeCASecret, err)
	}
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	if err != nil {
		return registration.Pair{}, err
	}
	fill(secret, ca)
	if err := s.Client.Create(ctx, secret); err != nil {
		return registration.Pair{}, fmt.Errorf("create Secret %s: %w", registration.EdgeCASecret, err)
	}
	s.Log.Info("made the edge CA", "secret", secret.Namespace+"/"+secret.Name)
	return ca, nil
}

func (s *Signer) secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name}, Type: corev1.SecretTypeTLS}
}

func fill(secret *corev1.Secret, pair registration.Pair) {
	secret.Data = map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key}
}

func pairOf(secret *corev1.Secret) registration.Pair {
	return registration.Pair{Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
}
