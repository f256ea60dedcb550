package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"crossway.dev/crossway/pkg/registration"
)

// certificates is the serving certificate and the client CA, as a Secret has
// them. A new certificate is used from the next connection on.
type certificates struct {
	secret types.NamespacedName
	log    logr.Logger

	// changed is called with the common name of the CA that signed the certificate.
	changed func(ca string)

	current atomic.Pointer[tls.Config]
	loaded  chan struct{} // closed when current is set
	// versionKey is of the first Secret that was read: another one would change the
	// version of everything that edges have. Set before loaded is closed.
	versionKey []byte
}

func newCertificates(config ListenerConfig) *certificates {
	return &certificates{secret: config.Secret, log: config.Log, changed: config.Server.connections.setCA, loaded: make(chan struct{})}
}

// watch keeps the certificates current until ctx ends.
func (c *certificates) watch(ctx context.Context, informers cache.Informers) error {
	informer, err := informers.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	registered, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.load(o.(*corev1.Secret)) },
		UpdateFunc: func(_, o any) { c.load(o.(*corev1.Secret)) },
	})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registered) })
	return nil
}

// load is called by one goroutine.
func (c *certificates) load(secret *corev1.Secret) {
	if secret.Namespace != c.secret.Namespace || secret.Name != c.secret.Name {
		return
	}
	config, err := tlsConfig(secret)
	if err != nil {
		c.log.Error(err, "could not read the xDS serving certificate; delete the Secret to have a new one made", "secret", c.secret.String())
		return
	}
	c.changed(config.Certificates[0].Leaf.Issuer.CommonName)
	if c.current.Swap(config) == nil {
		c.versionKey = secret.Data[registration.VersionKey]
		close(c.loaded)
	}
}

func tlsConfig(secret *corev1.Secret) (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data[registration.CAKey]) {
		return nil, fmt.Errorf("%s has no certificate", registration.CAKey)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots}, nil
}

// config gives each connection what is current when it begins.
func (c *certificates) config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil }}
}
