package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
)

// caKey is where the serving certificate's Secret has the CA's certificate.
const caKey = "ca.crt"

// signer makes the edge CA and the xDS serving certificate where they are missing, and a new serving certificate in
// time. It runs on the leader; an edge CA that is there, whatever it is, is never replaced.
type signer struct {
	client    client.Client
	live      client.Reader // past the cache, which may not have what was just made
	namespace string
	names     []string
	log       logr.Logger
}

// NeedLeaderElection says that one replica makes the certificates.
func (s *signer) NeedLeaderElection() bool { return true }

// Start looks at the certificates each hour, and soon again after a failure.
func (s *signer) Start(ctx context.Context) error {
	for {
		next := time.Hour
		if err := s.ensure(ctx); err != nil && ctx.Err() == nil {
			s.log.Error(err, "make certificates")
			next = 5 * time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

func (s *signer) ensure(ctx context.Context) error {
	ca, err := s.ensureCA(ctx)
	if err != nil {
		return err
	}
	issuer := registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}
	secret := s.secret(registration.XDSSecret)
	err = s.live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", registration.XDSSecret, err)
	}
	missing := err != nil
	fault := registration.ServerCertificateFault(issuer, pairOf(secret), s.names)
	if fault == "" && string(secret.Data[caKey]) == string(ca.Certificate) {
		return nil
	}
	server, err := registration.NewServerCertificate(issuer, s.names)
	if err != nil {
		return err
	}
	fill(secret, server)
	secret.Data[caKey] = ca.Certificate
	if missing {
		err = s.client.Create(ctx, secret)
	} else {
		s.log.Info("new xDS serving certificate", "reason", fault)
		err = s.client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", registration.XDSSecret, err)
	}
	return nil
}

func (s *signer) ensureCA(ctx context.Context) (registration.Pair, error) {
	secret := s.secret(registration.EdgeCASecret)
	err := s.live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
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
	if err := s.client.Create(ctx, secret); err != nil {
		return registration.Pair{}, fmt.Errorf("create Secret %s: %w", registration.EdgeCASecret, err)
	}
	s.log.Info("made the edge CA", "secret", secret.Namespace+"/"+secret.Name)
	return ca, nil
}

func (s *signer) secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, Type: corev1.SecretTypeTLS}
}

func fill(secret *corev1.Secret, pair registration.Pair) {
	secret.Data = map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key}
}

func pairOf(secret *corev1.Secret) registration.Pair {
	return registration.Pair{Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
}

// serving is the TLS configuration in force for edges, as the Secret has it: a new certificate serves the next
// connection. It works on every replica.
type serving struct {
	cache     cache.Cache
	namespace string
	log       logr.Logger

	current atomic.Pointer[tls.Config]
	there   chan struct{} // one place: current is set
}

func newServing(c cache.Cache, namespace string, log logr.Logger) *serving {
	return &serving{cache: c, namespace: namespace, log: log, there: make(chan struct{}, 1)}
}

// watch keeps the certificate current until ctx ends.
func (s *serving) watch(ctx context.Context) error {
	informer, err := s.cache.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	registered, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.read(o.(*corev1.Secret)) },
		UpdateFunc: func(_, o any) { s.read(o.(*corev1.Secret)) },
	})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registered) })
	return nil
}

func (s *serving) read(secret *corev1.Secret) {
	if secret.Namespace != s.namespace || secret.Name != registration.XDSSecret {
		return
	}
	config, err := tlsOf(secret)
	if err != nil {
		s.log.Error(err, "read the xDS serving certificate; delete the Secret to have a new one made", "secret", secret.Namespace+"/"+secret.Name)
		return
	}
	s.current.Store(config)
	select {
	case s.there <- struct{}{}:
	default:
	}
}

func tlsOf(secret *corev1.Secret) (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data[caKey]) {
		return nil, errors.New("ca.crt has no certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots}, nil
}

// config gives every connection what is in force when it begins.
func (s *serving) config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil }}
}
