package endpoints

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// batch is the longest that a pass rests after the last one, so that a storm of slices is taken together. It rests
	// twice as long as the last one took: single changes meet no rest, a storm takes at most a third of a core.
	batch = 10 * time.Millisecond
	// tick is how often what waits for its time is looked at.
	tick = 200 * time.Millisecond
	// forgetAfter is how long an edge that is gone keeps its part of the demand: it may only have lost its stream.
	forgetAfter = 10 * time.Second
)

// Loop is the fast stream of the hub. It is a manager's Runnable on every replica.
type Loop struct {
	config  Config
	metrics metrics
	intake  *intake
	synced  chan struct{} // closed when all slices, members and pools are in
	ended   chan struct{} // closed when Start ends

	mu     sync.Mutex // guards the rest
	world  *world
	served bool              // the first SetAssignments came
	told   map[string]string // region that each pool got everything for
	said   time.Time         // when overflow was last looked at
}

// New makes a Loop that knows nothing yet.
func New(config Config) *Loop {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	return &Loop{config: config, intake: newIntake(), synced: make(chan struct{}), ended: make(chan struct{}), told: map[string]string{},
		world: newWorld(config.Hub, config.Log), metrics: newMetrics()}
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
	ticker := l.config.Clock.NewTicker(tick)
	defer ticker.Stop()
	var rested time.Time // no pass before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		case <-l.intake.kick:
			if wait := rested.Sub(l.config.Clock.Now()); wait > 0 {
				select {
				case <-ctx.Done():
					return nil
				case <-l.config.Clock.After(wait):
				}
			}
		}
		began := l.config.Clock.Now()
		l.pass()
		ended := l.config.Clock.Now()
		rested = ended.Add(min(batch, 2*ended.Sub(began)))
	}
}

// watch adds the handlers and waits until each has seen all that was there.
func (l *Loop) watch(ctx context.Context) error {
	var registered []toolscache.InformerSynced
	for _, w := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&v1alpha1.MemberCluster{}, l.intake.memberHandler()},
		{&v1alpha1.EdgePool{}, l.intake.poolHandler()},
		{&discoveryv1.EndpointSlice{}, l.intake.sliceHandler()},
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

// SetAssignments says which assignments there are, and the policies of their imports. When it returns, the edges' pools
// have a load assignment for each, so that clusters may be published next. Before the Loop has seen all slices it
// waits: an assignment that is empty only because nobody looked yet would take traffic away.
func (l *Loop) SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy) {
	select {
	case <-l.synced:
	case <-l.ended:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.intake.take()
	d := newDirty()
	l.world.apply(events, d)
	removed := l.world.setAssignments(assignments, imports, d)
	l.served = true
	l.finish(d, removed)
}

// pass takes in what came and publishes what it changes. Events are taken under the lock, so that nobody applies older
// ones after newer.
func (l *Loop) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := l.config.Clock.Now()
	e := l.intake.take()
	d := newDirty()
	l.world.apply(e, d)
	l.finish(d, nil)
	if !e.empty() {
		l.metrics.passes.Observe(l.config.Clock.Since(began).Seconds())
	}
}

// finish divides what is due and publishes. l.mu is held.
func (l *Loop) finish(d dirty, removed []string) {
	now := l.config.Clock.Now()
	l.world.forget(now)
	l.world.due(d, now)
	l.world.divide(d, now)
	l.publish(l.encode(d), removed)
	l.reportOverflow(now)
}

// due marks the shares that may move again. It does not mark their assignments: only a move does.
func (w *world) due(d dirty, now time.Time) {
	for _, f := range w.flows {
		if f.due && now.Sub(f.moved) >= moveInterval {
			d.flows[f] = true
		}
	}
}

// forget drops edges that are gone for good.
func (w *world) forget(now time.Time) {
	for key, e := range w.edges {
		if e.streams > 0 || now.Sub(e.gone) < forgetAfter {
			continue
		}
		delete(w.edges, key)
		for _, f := range w.flows {
			if r := f.regions[e.Region]; r != nil {
				r.demand.ForgetEdge(key)
				r.health.ForgetEdge(key)
				delete(r.carry, key)
				delete(r.open, key)
				f.due = true
			}
		}
	}
}

// ObserveLoad takes one edge's load report. It does not block.
func (l *Loop) ObserveLoad(edge Edge, loads []Load) {
	h := heard{edge: edge, at: l.config.Clock.Now(), loads: loads}
	l.intake.put(func(e *events) {
		if len(e.loads) < maxLoads {
			e.loads = append(e.loads, h)
		}
	})
}

// PoolRemoved says that the Publisher removed a pool. Where the pool is there, deleted and made anew so quickly that the
// Loop saw one change or none, the next pass says everything again.
func (l *Loop) PoolRemoved(pool string) {
	l.mu.Lock()
	delete(l.told, pool)
	l.mu.Unlock()
	l.intake.put(func(*events) {})
}

// Connected counts an edge whose configuration stream began, so that its first report is waited for.
func (l *Loop) Connected(edge Edge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.world.edges[edge.key()]
	if c == nil {
		c = &connected{}
		l.world.edges[edge.key()] = c
	}
	c.Edge = edge
	c.streams++
	l.world.readEdges()
}

// Disconnected is the end of what Connected began.
func (l *Loop) Disconnected(edge Edge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.world.edges[edge.key()]; c != nil {
		c.streams--
		c.gone = l.config.Clock.Now()
		c.held = c.held && c.streams > 0
	}
	l.world.readEdges()
}

// InitialVersions takes the versions of load assignments that an edge has when it connects, before it is answered. Where the hub has just started,
// their shares are taken over, and what is published then has the same versions again.
func (l *Loop) InitialVersions(edge Edge, versions map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.world.edges[edge.key()]; c != nil {
		c.held = true
	}
	var known []string
	for name, version := range versions {
		if l.world.assignments[name] != nil {
			known = append(known, version)
		}
	}
	slices.Sort(known)
	d := newDirty()
	now := l.config.Clock.Now()
	for _, s := range traffic.LearnShares(edge.Region, known) {
		if f := l.world.flows[s.Backend]; f != nil && s.Backend.Kind == fleet.Import && f.learn(s.RegionShares, now) {
			d.flow(f)
		}
	}
	clear(d.flows) // learned shares are not divided again
	l.publish(l.encode(d), nil)
}

// update is one assignment of one region that changed.
type update struct {
	region   string
	resource envoy.Resource
}

// encode makes the marked assignments for every region and keeps what differs from what was sent. It uses all
// processors for many.
func (l *Loop) encode(d dirty) []update {
	keys := make([]string, 0, len(d.assignments))
	for key := range d.assignments {
		if l.world.assignments[key] != nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	results := make([][]update, len(keys))
	workers := min(runtime.GOMAXPROCS(0), 1+len(keys)/16)
	var group sync.WaitGroup
	for n := range workers {
		group.Go(func() {
			for i := n; i < len(keys); i += workers {
				results[i] = l.encodeOne(l.world.assignments[keys[i]])
			}
		})
	}
	group.Wait()
	return slices.Concat(results...)
}

// encodeOne touches nothing but a, so that several may run at once.
func (l *Loop) encodeOne(a *assigned) []update {
	var out []update
	for _, r := range l.world.regions {
		made := lbsync.Assign(l.world.input(a, r.name))
		resource, err := envoy.LoadAssignment(made)
		if err != nil {
			l.config.Log.Error(err, "encode load assignment", "assignment", a.Key, "region", r.name)
			continue
		}
		before := a.sent[r.name]
		a.sent[r.name] = sent{resource: resource, overlaps: len(made.Overlaps)}
		if before.resource.Version != resource.Version {
			out = append(out, update{region: r.name, resource: resource})
		}
	}
	return out
}

// publish sends updates to the pools of their regions; a pool that is new, or moved to another region, gets everything.
// Before the first Build there is nothing that could be said of any pool.
func (l *Loop) publish(updates []update, removed []string) {
	if !l.served {
		return
	}
	byRegion := map[string][]envoy.Resource{}
	for _, u := range updates {
		byRegion[u.region] = append(byRegion[u.region], u.resource)
	}
	maps.DeleteFunc(l.told, func(pool, _ string) bool { return l.world.pools[pool] == nil })
	for name, pool := range l.world.pools {
		region := pool.Spec.Region
		if l.told[name] != region {
			l.told[name] = region
			l.config.Publisher.UpdateLoadAssignments(name, l.world.all(region), removed)
			continue
		}
		if changed := byRegion[region]; len(changed) > 0 || len(removed) > 0 {
			l.config.Publisher.UpdateLoadAssignments(name, changed, removed)
		}
	}
	l.metrics.published.Add(float64(len(updates)))
}

// all lists what a region has, by key.
func (w *world) all(region string) []envoy.Resource {
	out := make([]envoy.Resource, 0, len(w.assignments))
	for _, key := range slices.Sorted(maps.Keys(w.assignments)) {
		if s, made := w.assignments[key].sent[region]; made {
			out = append(out, s.resource)
		}
	}
	return out
}
