package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"crossway.dev/crossway/pkg/registration"
)

// certificates are the certificate of replicas and the CAs that sign it, as the Secret has them.
type certificates struct {
	config  Config
	current atomic.Pointer[keys]
	loaded  chan struct{} // closed when current is set
}

// keys are of one version of the Secret. ctx ends with the next one, and connections
// with it: what an old certificate had opened ends when the certificate is replaced.
type keys struct {
	ctx         context.Context
	end         context.CancelFunc
	raw         map[string][]byte
	certificate tls.Certificate
	roots       *x509.CertPool
	client      credentials.TransportCredentials
}

func newCertificates(config Config) *certificates {
	return &certificates{config: config, loaded: make(chan struct{})}
}

// watch keeps them current until ctx ends.
func (c *certificates) watch(ctx context.Context) error {
	informer, err := c.config.Informers.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	load := func(o any) { c.load(ctx, o.(*corev1.Secret)) }
	registered, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: load, UpdateFunc: func(_, o any) { load(o) }})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registered) })
	return nil
}

// load is called by one goroutine.
func (c *certificates) load(ctx context.Context, secret *corev1.Secret) {
	if secret.Namespace != c.config.Secret.Namespace || secret.Name != c.config.Secret.Name {
		return
	}
	before := c.current.Load()
	if before != nil && sameData(before.raw, secret.Data) {
		return
	}
	loaded, err := newKeys(ctx, secret.Data)
	if err != nil {
		c.config.Log.Error(err, "could not read the certificate of replicas; delete the Secret to have a new one made", "secret", c.config.Secret.String())
		return
	}
	c.current.Store(loaded)
	if before == nil {
		close(c.loaded)
		return
	}
	before.end()
}

func sameData(a, b map[string][]byte) bool {
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, registration.CAKey} {
		if !bytes.Equal(a[key], b[key]) {
			return false
		}
	}
	return true
}

func newKeys(ctx context.Context, data map[string][]byte) (*keys, error) {
	certificate, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, err
	}
	if err := registration.CheckReplica(certificate.Leaf); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[registration.CAKey]) {
		return nil, fmt.Errorf("%s has no certificate", registration.CAKey)
	}
	k := &keys{raw: data, certificate: certificate, roots: roots}
	k.ctx, k.end = context.WithCancel(ctx)
	k.client = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: roots,
		ServerName: registration.ReplicaServerName, VerifyConnection: isReplica})
	return k, nil
}

// server gives each connection what is current when it begins. Sessions are not resumed,
// which would take a certificate for good that is checked no more.
func (c *certificates) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		k := c.current.Load()
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{k.certificate}, ClientCAs: k.roots, NextProtos: []string{"h2"},
			ClientAuth: tls.RequireAndVerifyClientCert, VerifyConnection: isReplica, SessionTicketsDisabled: true}, nil
	}}
}

// isReplica lets only replicas in: the CA signs the certificates of edges, too.
func isReplica(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 {
		return errors.New("no verified certificate")
	}
	return registration.CheckReplica(state.VerifiedChains[0][0])
}

// check says whether a peer's certificate is still good.
func (k *keys) check(p *peer.Peer) error {
	if p == nil {
		return errors.New("no peer")
	}
	auth, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(auth.State.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range auth.State.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := auth.State.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: k.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}
