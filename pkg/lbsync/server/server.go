package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/registration"
)

// Config is what a Server is made from. Authorize must be set.
type Config struct {
	// Authorize returns why an edge is rejected, nil if its EdgePool has an edge of
	// this identity. It is called at the start of each stream and by Reauthorize.
	Authorize func(registration.EdgeIdentity) error
	// ReportInterval is the interval of an edge's load reports; 1 s if zero.
	ReportInterval time.Duration
	// WarmTimeout is how long routes and listeners wait for clusters that an edge
	// does not ACK; 5 s if zero.
	WarmTimeout time.Duration
	// MaxEdges is how many edges one pool may have connected; 100 if zero.
	MaxEdges int
	// OldCALife is for how long a connection lives whose certificate another CA has signed
	// than the server's: then the edge comes back with the certificate that it has by now.
	// A random half is added, so that not all come at once. 5 min if zero.
	OldCALife time.Duration
	// Renew signs an edge's request for a new certificate (registration.RenewalMethod). Nil:
	// nobody does.
	Renew func(id registration.EdgeIdentity, request []byte) ([]byte, error)
	Log   logr.Logger
}

// Server serves configuration to, and receives load reports from, the edges of
// many pools. Its methods may be called at any time from any goroutine.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	config   Config
	observer Observer // not changed after Register
	seal     seal     // nor is this
	// connections have a lock of their own.
	connections *connections
	metrics     metrics
	strayTime   time.Duration // but for tests, that of usage.go
	// rejections limits the log lines about streams that have no pool yet.
	rejections *rate.Limiter

	mu       sync.Mutex // guards the rest
	pools    map[string]*pool
	sessions map[*session]struct{}
	streams  uint64
	// moved are edges that were moved to another replica, and until when they are refused here.
	moved map[edgeName]time.Time
}

// New makes a Server without pools.
func New(config Config) *Server {
	if config.ReportInterval == 0 {
		config.ReportInterval = time.Second
	}
	if config.WarmTimeout == 0 {
		config.WarmTimeout = 5 * time.Second
	}
	if config.OldCALife == 0 {
		config.OldCALife = 5 * time.Minute
	}
	if config.MaxEdges == 0 {
		config.MaxEdges = 100
	}
	return &Server{config: config, metrics: newMetrics(config.MaxEdges), rejections: rate.NewLimiter(logRate, logBurst), connections: newConnections(config),
		strayTime: strayTime, pools: map[string]*pool{}, sessions: map[*session]struct{}{}, moved: map[edgeName]time.Time{}}
}

// Observe sets who is notified of what edges do. Call it before Register.
func (s *Server) Observe(o Observer) { s.observer = o }

// Register adds the services to a gRPC server, which must be one that requires
// client certificates (Server.NewGRPCServer).
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	loadstats.RegisterLoadReportingServiceServer(g, s.loadReporting())
	accesslog.RegisterAccessLogServiceServer(g, usageServer{Server: s})
	if s.config.Renew != nil {
		g.RegisterService(&renewalService, s)
	}
}

// SetResources replaces everything but the load assignments of a pool. What
// changed, by version, is sent. Edges get nothing before the first call, so the
// first one must be complete. It never waits for edges, nor for what they make the
// hub do: who uses the pool meanwhile takes over what was published.
func (s *Server) SetResources(pool string, snapshot Snapshot) {
	s.pool(pool).setResources(snapshot)
}

// UpdateLoadAssignments adds or changes load assignments of a pool and withdraws
// others; the rest stays. It costs what changes and never waits, as SetResources.
// Edges get no assignment before the first call, so it must be complete, or empty.
//
// A withdrawn assignment keeps its endpoints until the next SetResources: a
// snapshot that no longer uses it deletes it, one that still does empties it.
func (s *Server) UpdateLoadAssignments(pool string, changed []Resource, removed []string) {
	s.pool(pool).updateLoadAssignments(changed, removed)
}

// Edges is what each connected edge of a pool has done with its snapshots.
// Observer.Progress says when to ask again. It never waits.
func (s *Server) Edges(pool string) []EdgeState {
	s.mu.Lock()
	p := s.pools[pool]
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return *p.edges.Load()
}

// Connected is every connected edge, by pool and then in the order in which they came. It
// never waits.
func (s *Server) Connected() []Edge {
	s.mu.Lock()
	pools := maps.Clone(s.pools)
	s.mu.Unlock()
	var edges []Edge
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		for _, state := range *pools[name].edges.Load() {
			edges = append(edges, state.Edge)
		}
	}
	return edges
}

// RemovePool deletes what a pool should have, and ends its streams. Their edges keep
// what they have. A pool may be made again at once, so that Config.Authorize never
// rejects them: they then open new streams and get what the new pool has.
func (s *Server) RemovePool(pool string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pools, pool)
	for open := range s.sessions {
		if open.identity.Pool == pool {
			open.end(status.Errorf(codes.Aborted, "pool %q was removed", pool))
		}
	}
}

// pool makes the pool if there is none: for those who publish, and for streams.
func (s *Server) pool(name string) *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[name]
	if p == nil {
		p = newPool(name, s.config.MaxEdges, s.notifyProgress)
		s.pools[name] = p
	}
	return p
}

func (s *Server) notifyProgress(pool string) {
	if s.observer.Progress != nil {
		s.observer.Progress(pool)
	}
}

// Ping returns once every lock of the server was free. A server that is stuck does
// not return.
func (s *Server) Ping() {
	s.mu.Lock()
	pools := slices.Collect(maps.Values(s.pools))
	s.mu.Unlock()
	for _, p := range pools {
		p.lock()
		p.unlock()
	}
}

// Describe returns the state of all pools and their edges as text for people. It
// has nothing of the content of resources.
func (s *Server) Describe() string {
	s.mu.Lock()
	pools := maps.Clone(s.pools)
	s.mu.Unlock()
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		fmt.Fprintf(&out, "pool %s, %s", name, pools[name].describe())
	}
	return out.String()
}
