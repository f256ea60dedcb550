package server

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// maxBatchDelay is the longest pause after a pass, which is cooldownFactor times as
	// long as the pass took: a storm of slices takes at most a third of a core.
	maxBatchDelay  = 10 * time.Millisecond
	cooldownFactor = 2
	// pruneInterval is how often old deletions are forgotten while nothing changes.
	pruneInterval = time.Minute
	// wakeAll is after how many changes all watches are brought up to date, also those
	// whose readers see none of them: else they would fall behind what is remembered.
	wakeAll = 1000
	// lostTime is how long after a deletion that nobody saw others may still follow
	// from it: exports are merged elsewhere, and lists of two kinds come one by one.
	lostTime = 10 * time.Second
)

// Config is what a Server is made from. Clock is optional.
type Config struct {
	Informers cache.Informers
	// Reserved are the hub's own ranges, which no member may announce.
	Reserved []netip.Prefix
	// Live is closed once the informers have what the API server has. What they have before,
	// from a snapshot, is older than what members have. Nil: it is so from the start.
	Live <-chan struct{}
	// Sign signs certificates for gossip; nil: there is no gossip.
	Sign  func(id registration.GossipIdentity, request []byte, credentialEnd time.Time) ([]byte, error)
	Clock clock.WithTicker
	Log   logr.Logger
}

// Server keeps what members see, and answers their requests. It is a manager's
// Runnable on every replica.
type Server struct {
	config  Config
	metrics metrics
	inbox   *batch.Inbox[pending]
	merged  chan struct{} // closed with the first call of Merged
	once    sync.Once     // for merged
	ready   chan struct{} // closed when the State is whole
	roster  atomic.Pointer[roster]

	// Of the loop's goroutine:
	clusters map[string]*v1alpha1.MemberCluster
	wokenAt  uint64                          // the State's version when all watches were last woken
	lostAt   map[fleet.ServiceName]time.Time // also everyService

	// listed is the resourceVersion of the first list of slices.
	listed atomic.Uint64

	mu    sync.RWMutex // guards state and read
	state *memberapi.State
	// read is the resourceVersion that the informer of slices has read.
	read func() uint64

	openMu   sync.Mutex // guards the rest
	open     map[fleet.ClusterName]*memberState
	draining bool
}

// New makes a Server.
func New(config Config) *Server {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.Live == nil {
		live := make(chan struct{})
		close(live)
		config.Live = live
	}
	s := &Server{
		config: config, metrics: newMetrics(), inbox: batch.NewInbox(newPending), merged: make(chan struct{}), ready: make(chan struct{}),
		state: memberapi.New(memberapi.Start(config.Clock.Now(), rand.Uint32()), config.Reserved),
		read:  func() uint64 { return 0 }, clusters: map[string]*v1alpha1.MemberCluster{}, lostAt: map[fleet.ServiceName]time.Time{}, open: map[fleet.ClusterName]*memberState{},
	}
	s.setRoster(nil)
	return s
}

// NeedLeaderElection says that every replica serves members.
func (s *Server) NeedLeaderElection() bool { return false }

// Ready is closed once all that members see is known.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Merged takes services whose merge changed; nil: no member exports the service. The
// first call has all services. It does not wait.
func (s *Server) Merged(changed map[fleet.ServiceName]*v1alpha1.FleetServiceSpec) {
	s.inbox.Add(func(p *pending) { maps.Copy(p.services, changed) })
	s.once.Do(func() { close(s.merged) })
}

// Start keeps the State until ctx ends.
func (s *Server) Start(ctx context.Context) error {
	if err := s.watch(ctx); err != nil {
		return err
	}
	select {
	case <-s.merged:
	case <-ctx.Done():
		return nil
	}
	live := s.config.Live
	ticker := s.config.Clock.NewTicker(pruneInterval)
	defer ticker.Stop()
	pace := batch.Pace{MaxDelay: maxBatchDelay, CooldownFactor: cooldownFactor}
	for {
		var due <-chan time.Time
		wake := s.inbox.Wake()
		if at, waits := pace.Due(); waits { // a signal that comes meanwhile stays set
			due, wake = s.config.Clock.After(at.Sub(s.config.Clock.Now())), nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-live:
			s.pass()
			close(s.ready)
			live = nil
		case <-wake:
			pace.Event(s.config.Clock.Now())
		case <-ticker.C():
			s.pass()
		case <-due:
			began := s.config.Clock.Now()
			s.pass()
			pace.Ran(began, s.config.Clock.Now())
		}
	}
}

// Ping returns once the loop has finished a pass, or with an error when ctx ends.
func (s *Server) Ping(ctx context.Context) error {
	done := make(chan struct{})
	s.inbox.Add(func(p *pending) { p.pings = append(p.pings, done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a pass: %w", context.Cause(ctx))
	}
}

// Dump is what each member sees, and its open watches, for people.
func (s *Server) Dump() any {
	s.mu.RLock()
	readers := s.state.Dump()
	s.mu.RUnlock()
	type watch struct{ Resource, Began string }
	type memberDump struct {
		memberapi.ReaderDump
		Watches []watch
	}
	s.openMu.Lock()
	defer s.openMu.Unlock()
	out := make([]memberDump, 0, len(readers))
	for _, r := range readers {
		d := memberDump{ReaderDump: r}
		if c := s.open[r.Member]; c != nil {
			for e := c.watches.Front(); e != nil; e = e.Next() {
				w := e.Value.(*openWatch)
				d.Watches = append(d.Watches, watch{w.resource, w.began.UTC().Format(time.RFC3339)})
			}
		}
		out = append(out, d)
	}
	return out
}

// lost are the services of which something was lost lately, and whether of any.
func (s *Server) lost(services sets.Set[fleet.ServiceName], now time.Time) (lately sets.Set[fleet.ServiceName], all bool) {
	for service := range services {
		s.lostAt[service] = now
	}
	maps.DeleteFunc(s.lostAt, func(_ fleet.ServiceName, at time.Time) bool { return now.Sub(at) >= lostTime })
	lately = sets.KeySet(s.lostAt)
	return lately, lately.Has(everyService)
}

// pass takes in what is pending, and wakes the watches that it concerns.
func (s *Server) pass() {
	began := s.config.Clock.Now()
	p := s.inbox.Drain()
	changes := memberapi.Changes{Services: p.services, Slices: p.slices, Seen: p.seen}
	changes.Lost, changes.AllLost = s.lost(p.lost, began)
	if len(p.clusters) > 0 {
		for name, m := range p.clusters {
			if m == nil {
				delete(s.clusters, name)
			} else {
				s.clusters[name] = m
			}
		}
		members := make([]v1alpha1.MemberCluster, 0, len(s.clusters))
		for _, m := range s.clusters {
			members = append(members, *m)
		}
		changes.Members = &members
	}
	s.mu.Lock()
	touched := s.state.Apply(changes, began)
	changesSince := s.state.ChangesSince(s.wokenAt)
	all := touched.Readers || changesSince > wakeAll
	if all {
		s.wokenAt = s.state.Version()
	}
	s.mu.Unlock()
	if changes.Members != nil { // after the State: who waits is then judged by what holds now
		s.setRoster(*changes.Members)
	}
	if touched.Readers {
		s.forgetIdle()
	}
	s.wake(touched, all)
	if !p.empty() {
		s.metrics.passes.Observe(s.config.Clock.Since(began).Seconds())
	}
	for _, done := range p.pings {
		close(done)
	}
}
