package endpoints

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// maxBatchDelay is the longest pause after a pass, so that a storm of slices is taken together. The pause is
	// cooldownFactor times as long as the last pass took: single changes meet no pause, a storm takes at most a third of a
	// core.
	maxBatchDelay  = 10 * time.Millisecond
	cooldownFactor = 2
	// tickInterval is how often work that waits for its time is looked at.
	tickInterval = 200 * time.Millisecond
	// overflowReportInterval is how often the condition Overflowing is reported.
	overflowReportInterval = time.Second
)

// Loop turns slices and load reports into load assignments. It is a manager's Runnable on every replica.
type Loop struct {
	config  Config
	metrics metrics
	inbox   inbox
	synced  chan struct{} // closed when all slices, members and pools are in
	ended   chan struct{} // closed when Start ends
	passes  atomic.Uint64 // how many passes the loop has finished

	mu             sync.Mutex // guards the rest
	state          *state.State
	published      published
	assignmentsSet bool                                // the first SetAssignments came
	lastReported   time.Time                           // when the condition Overflowing was last reported
	announcements  map[state.HealthEvent]*announcement // by region and member
	unserved       unservedReports
	turns          turns
	peers          peers
}

// New makes a Loop.
func New(config Config) *Loop {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	l := &Loop{config: config, inbox: newInbox(), synced: make(chan struct{}), ended: make(chan struct{}),
		state: state.New(config.Hub), turns: turns{}, published: newPublished(), metrics: newMetrics(), announcements: map[state.HealthEvent]*announcement{},
		peers: peers{edges: &sharedEdges{edges: map[string]*sharedEdge{}, pools: map[string]*sharedPool{}, log: config.Log}}}
	l.subscribe()
	return l
}

// NeedLeaderElection says that every replica serves its edges.
func (l *Loop) NeedLeaderElection() bool { return false }

// Start runs until ctx ends.
func (l *Loop) Start(ctx context.Context) error {
	defer close(l.ended)
	if err := l.watch(ctx); err != nil {
		return err
	}
	l.pass()
	close(l.synced)
	ticker := l.config.Clock.NewTicker(tickInterval)
	defer ticker.Stop()
	pace := batch.Pace{MaxDelay: maxBatchDelay, CooldownFactor: cooldownFactor}
	for {
		began := l.config.Clock.Now()
		if at, pending := pace.Due(); !pending || at.After(began) {
			var due <-chan time.Time
			wake := l.inbox.Wake()
			if pending { // a signal that comes meanwhile stays set
				due, wake = l.config.Clock.After(at.Sub(began)), nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-wake:
				pace.Event(l.config.Clock.Now())
				continue
			case <-due:
			case <-ticker.C():
			}
			began = l.config.Clock.Now()
		}
		l.pass()
		l.passes.Add(1)
		pace.Ran(began, l.config.Clock.Now())
	}
}

// Ping returns once the loop has finished a pass, or with an error when ctx ends: a
// loop that is stuck finishes none. An idle one does at each tick.
func (l *Loop) Ping(ctx context.Context) error {
	ticker := l.config.Clock.NewTicker(tickInterval)
	defer ticker.Stop()
	for before := l.passes.Load(); l.passes.Load() == before; {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return fmt.Errorf("wait for a pass: %w", context.Cause(ctx))
		}
	}
	return nil
}

// watch adds the handlers and waits until each has seen all existing objects.
func (l *Loop) watch(ctx context.Context) error {
	var registered []toolscache.InformerSynced
	for _, w := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&v1alpha1.MemberCluster{}, l.inbox.memberHandler()},
		{&v1alpha1.EdgePool{}, l.inbox.poolHandler()},
		{&discoveryv1.EndpointSlice{}, l.inbox.sliceHandler()},
	} {
		informer, err := l.config.Cache.GetInformer(ctx, w.object)
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		r, err := informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		registered = append(registered, r.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registered...) {
		return ctx.Err()
	}
	return nil
}

// SetAssignments replaces all assignments and the policies of their imports. When it returns, the edges' pools have a
// load assignment for each, so that clusters may be published next. It waits until the Loop has seen all slices:
// otherwise an assignment would be empty only because its slices are not read yet, and take traffic away. Slices of a member
// that changes many wait for their turn here, too.
func (l *Loop) SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy) {
	select {
	case <-l.synced:
	case <-l.ended:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announce(l.state.Apply(l.take()))
	removed := l.state.SetAssignments(assignments, imports)
	l.assignmentsSet = true
	l.peers.edges.setAssignments(assignments)
	l.update(removed)
}

// pass takes the pending changes and publishes what they change. Changes are drained under the lock, so that no older
// ones are applied after newer.
func (l *Loop) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := l.config.Clock.Now()
	changes := l.take()
	l.announce(l.state.Apply(changes))
	l.update(nil)
	if !changes.Empty() {
		l.metrics.passes.Observe(l.config.Clock.Since(began).Seconds())
	}
}

// take drains the inbox: at the start of everything, and then by turns. l.mu is held.
func (l *Loop) take() state.Changes {
	select {
	case <-l.synced:
		return l.inbox.takeTurn(l.turns)
	default:
		return l.inbox.Drain()
	}
}

// update brings the shares up to date, and publishes and reports what changed. l.mu is held.
func (l *Loop) update(removed []string) {
	now := l.config.Clock.Now()
	l.meetPeers()
	l.publish(l.state.Update(now), removed)
	l.tellPeers(now)
	l.tellUnserved(now)
	if l.config.Reporter == nil || !l.assignmentsSet || now.Sub(l.lastReported) < overflowReportInterval {
		return
	}
	l.lastReported = now
	l.config.Reporter.Report(l.state.OverflowReports(now))
}

// ObserveLoad takes one edge's load report. It does not block.
func (l *Loop) ObserveLoad(edge Edge, loads []Load) {
	l.inbox.addReport(state.LoadReport{Edge: edge, At: l.config.Clock.Now(), Loads: loads})
	l.shareReport(edge, loads)
}

// PoolRemoved says that the Publisher removed a pool. A pool may be deleted and created again so quickly that the Loop
// saw one change or none: then the next pass publishes all its load assignments again.
func (l *Loop) PoolRemoved(pool string) {
	l.mu.Lock()
	delete(l.published.pools, pool)
	l.mu.Unlock()
	l.inbox.Add(func(*state.Changes) {})
}

// Connected counts an edge whose configuration stream began, so that shares wait for its first report.
func (l *Loop) Connected(edge Edge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeChanges()
	l.state.Connected(edge, l.config.Clock.Now())
	l.shareEdge(edge, 1)
}

// takeChanges takes what came before an edge's connection, which is not in the inbox, began or ended. The next pass publishes
// it. l.mu is held.
func (l *Loop) takeChanges() {
	if changes := l.take(); !changes.Empty() {
		l.announce(l.state.Apply(changes))
		l.inbox.Add(func(*state.Changes) {})
	}
}

// Disconnected ends what Connected began.
func (l *Loop) Disconnected(edge Edge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeChanges()
	l.state.Disconnected(edge, l.config.Clock.Now())
	l.shareEdge(edge, -1)
}

// InitialVersions takes the versions of load assignments that an edge has when it connects, before it is answered. Where
// the hub has just started, it adopts the shares that most edges of the region have, and publishes load assignments of the
// same versions again.
func (l *Loop) InitialVersions(edge Edge, versions map[string]string) {
	held := traffic.LearnShares(edge.Region, slices.Sorted(maps.Values(versions))) // which takes a while: nobody waits for it
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publish(l.state.Learn(edge, held, l.config.Clock.Now()), nil)
}

// Leave says that this replica stops soon, so that it follows another one. Its own edges are served until then.
func (l *Loop) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Leave()
}

// Dump is the state, for people.
func (l *Loop) Dump() state.Dump {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Dump()
}
