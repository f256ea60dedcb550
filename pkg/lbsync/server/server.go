package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Config is what a Server is made from. Identify and Authorize must be set.
type Config struct {
	// Identify reads the identity from a client certificate whose chain is
	// verified; an error says that it is no edge's (registration.EdgeIdentityOf).
	Identify func(*x509.Certificate) (Identity, error)
	// Authorize says why an edge is refused, nil where its EdgePool bears out its
	// identity. Asked at the start of each stream and by Reauthorize.
	Authorize func(Identity) error
	Observer  Observer
	// ReportInterval is between two load reports of an edge; 1 s where zero.
	ReportInterval time.Duration
	// WarmTimeout is how long routes and listeners wait for clusters that an edge
	// does not ACK; 5 s where zero.
	WarmTimeout time.Duration
	Log         logr.Logger
}

// Server serves configuration to, and takes load reports from, the edges of
// many pools. Its methods may be called at any time from any goroutine.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	config  Config
	metrics metrics

	mu       sync.Mutex // guards the rest
	pools    map[string]*pool
	sessions map[*session]struct{}
	streams  uint64
}

// New returns a server that knows no pool.
func New(config Config) *Server {
	if config.ReportInterval == 0 {
		config.ReportInterval = time.Second
	}
	if config.WarmTimeout == 0 {
		config.WarmTimeout = 5 * time.Second
	}
	return &Server{config: config, metrics: newMetrics(), pools: map[string]*pool{}, sessions: map[*session]struct{}{}}
}

// Register adds both services to a gRPC server, which must be one that demands
// client certificates (NewGRPCServer).
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	loadstats.RegisterLoadReportingServiceServer(g, s.loadReporting())
}

// NewGRPCServer is a gRPC server for edges: TLS 1.3, a client certificate of
// base.ClientCAs demanded, and the connection ends when that does. base, or what its GetConfigForClient returns, has the
// server's certificates.
func NewGRPCServer(base *tls.Config, options ...grpc.ServerOption) *grpc.Server {
	strict := strictTLS(base)
	if perClient := base.GetConfigForClient; perClient != nil {
		strict.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := perClient(hello)
			if c == nil || err != nil {
				return nil, err
			}
			return strictTLS(c), nil
		}
	}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(expiring{credentials.NewTLS(strict)}),
		// Envoy pings each 5 s; gRPC's default allows one in 5 min and then hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// An edge whose machine vanished must not count as connected for long.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second}),
		// A first request names all that the edge holds; a report has all clusters.
		grpc.MaxRecvMsgSize(64 << 20),
	}, options...)...)
}

func strictTLS(base *tls.Config) *tls.Config {
	strict := base.Clone()
	strict.MinVersion = tls.VersionTLS13
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	strict.NextProtos = []string{"h2"}
	return strict
}

// SetResources replaces all but the load assignments of a pool. What changed, by
// version, is sent; the rest is not touched. Edges get nothing before the first
// call, so the first one must be complete.
func (s *Server) SetResources(pool string, snapshot Snapshot) {
	if s.pool(pool).setResources(snapshot) {
		s.progress(pool)
	}
}

// UpdateLoadAssignments adds or changes load assignments of a pool and takes others
// back; the rest stays. It costs what changes and never waits for an edge. Edges
// get no assignment before the first call, so it must be complete, or empty.
//
// An assignment that is taken back keeps its endpoints until a snapshot decides:
// one that no longer uses it forgets it, one that still does empties it.
func (s *Server) UpdateLoadAssignments(pool string, changed []Resource, removed []string) {
	s.pool(pool).updateLoadAssignments(changed, removed)
}

// Applied is what each connected edge of a pool has done with its snapshots; its
// length is the number of connected edges. Observer.Progress says when to ask
// again.
func (s *Server) Applied(pool string) []State { return s.pool(pool).applied() }

// RemovePool forgets what a pool should have. Streams that are still open keep
// what they have: Config.Authorize and Reauthorize end them.
func (s *Server) RemovePool(pool string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pools, pool)
}

func (s *Server) pool(name string) *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[name]
	if p == nil {
		p = newPool(name)
		s.pools[name] = p
	}
	return p
}

func (s *Server) progress(pool string) {
	if s.config.Observer.Progress != nil {
		s.config.Observer.Progress(pool)
	}
}

// session is one open stream of either service.
type session struct {
	identity Identity
	number   uint64
	// revoked (one place) ends the stream.
	revoked chan error
}

// admit finds out who calls and whether it may. The session is known before it
// is authorized, so that no change of mind falls between the two.
func (s *Server) admit(ctx context.Context, service string) (*session, error) {
	identity, err := s.identify(ctx)
	if err != nil {
		s.refuse(service, err)
		return nil, err
	}
	s.mu.Lock()
	s.streams++
	open := &session{identity: identity, number: s.streams, revoked: make(chan error, 1)}
	s.sessions[open] = struct{}{}
	s.mu.Unlock()
	if err := s.authorize(identity); err != nil {
		s.leave(open)
		s.refuse(service, err)
		return nil, err
	}
	return open, nil
}

func (s *Server) refuse(service string, err error) {
	s.metrics.refusedStreams.WithLabelValues(service).Inc()
	s.config.Log.Info("refused a stream", "service", service, "reason", status.Convert(err).Message())
}

func (s *Server) leave(open *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, open)
}

// Reauthorize asks Config.Authorize again about every open stream and ends those
// that it refuses now. Call it after EdgePools changed.
func (s *Server) Reauthorize() {
	s.mu.Lock()
	open := make([]*session, 0, len(s.sessions))
	for one := range s.sessions {
		open = append(open, one)
	}
	s.mu.Unlock()
	for _, one := range open {
		if err := s.authorize(one.identity); err != nil {
			select {
			case one.revoked <- err:
			default:
			}
		}
	}
}
