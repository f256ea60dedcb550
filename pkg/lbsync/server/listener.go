package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/registration"
)

// ListenerConfig is what a Listener is made from. All of it must be set.
type ListenerConfig struct {
	Server    *Server
	Address   string // host:port
	Informers cache.Informers
	// Secret has the serving certificate and the CA of client certificates.
	Secret types.NamespacedName
	// Ready is closed when the Server has something to serve.
	Ready <-chan struct{}
	Log   logr.Logger
}

// Listener serves edges over mutual TLS once there is a certificate and something
// to serve. An edge that reconnects earlier is refused the connection, keeps what
// it has, and tries again within half a second. It is a manager's Runnable on
// every replica.
type Listener struct {
	config       ListenerConfig
	certificates *certificates
	serving      chan struct{}
}

// NewListener makes a Listener.
func NewListener(config ListenerConfig) *Listener {
	return &Listener{config: config, certificates: newCertificates(config), serving: make(chan struct{})}
}

// Serving is closed when edges can connect.
func (l *Listener) Serving() <-chan struct{} { return l.serving }

// Certified is closed once there is a serving certificate.
func (l *Listener) Certified() <-chan struct{} { return l.certificates.loaded }

// Certificate is the serving certificate of the next connection, for another server
// of the same names (tls.Config.GetCertificate).
func (l *Listener) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &l.certificates.current.Load().Certificates[0], nil
}

// NeedLeaderElection says that every replica serves edges.
func (l *Listener) NeedLeaderElection() bool { return false }

// Start serves until ctx ends. Streams are cut then rather than drained: they
// never end by themselves, and an edge goes on with what it has.
func (l *Listener) Start(ctx context.Context) error {
	if err := l.watchPools(ctx); err != nil {
		return err
	}
	if err := l.certificates.watch(ctx, l.config.Informers); err != nil {
		return err
	}
	for _, condition := range []<-chan struct{}{l.certificates.loaded, l.config.Ready} {
		select {
		case <-condition:
		case <-ctx.Done():
			return nil
		}
	}
	l.config.Server.SetVersionKey(l.versionKey())
	socket, err := listener.Listen(ctx, l.config.Address)
	if err != nil {
		return fmt.Errorf("serve edges: %w", err)
	}
	g := l.config.Server.NewGRPCServer(l.certificates.config())
	l.config.Server.Register(g)
	context.AfterFunc(ctx, g.Stop)
	l.config.Log.Info("serving edges", "address", socket.Addr().String())
	close(l.serving)
	if err := g.Serve(socket); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve edges: %w", err)
	}
	return nil
}

// versionKey is the Secret's. A Secret that an older hub made has none before the
// leader adds it, and this hub may not lead before it serves: it then uses a key of its
// own, and after its next restart edges are sent their load assignments again.
func (l *Listener) versionKey() []byte {
	if key := l.certificates.versionKey; len(key) >= registration.VersionKeyLength {
		return key
	}
	l.config.Log.Info("the Secret has no key for versions yet", "secret", l.config.Secret.String())
	return registration.NewVersionKey()
}

// watchPools authorizes the open streams again when an EdgePool changes. A pool that
// was deleted and made again may come as a change of its UID.
func (l *Listener) watchPools(ctx context.Context) error {
	informer, err := l.config.Informers.GetInformer(ctx, &v1alpha1.EdgePool{})
	if err != nil {
		return fmt.Errorf("watch EdgePools: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			if b, a := before.(client.Object), after.(client.Object); b.GetGeneration() != a.GetGeneration() || b.GetUID() != a.GetUID() ||
				b.GetAnnotations()[registration.AnnotationRestoredFrom] != a.GetAnnotations()[registration.AnnotationRestoredFrom] {
				l.config.Server.Reauthorize()
			}
		},
		DeleteFunc: func(any) { l.config.Server.Reauthorize() },
	})
	if err != nil {
		return fmt.Errorf("watch EdgePools: %w", err)
	}
	return nil
}
