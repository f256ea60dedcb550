package reconciler

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Reporter takes verdicts (condition/writer.Source). It does not block.
type Reporter interface {
	// Report takes all verdicts there are.
	Report([]condition.Report)
	// Recheck is told of an object that somebody wrote to.
	Recheck(condition.Kind, fleet.ObjectName)
}

// comeback is how long edges may take to come back after the hub started: for
// that long a Gateway that was programmed counts as such.
const comeback = 10 * time.Second

// Options are what a Reconciler works with. All but Clock and CRDVersion must be set.
type Options struct {
	Cache     cache.Cache
	Publisher Publisher
	Assigner  Assigner
	Reporter  Reporter
	Keeper    *Keeper
	// CRDVersion is gateway.Input.CRDVersion.
	CRDVersion string
	// Clock gives times. Nil: the real one.
	Clock clock.Clock
}

// Reconciler is the loop. It is a Runnable that every replica runs.
type Reconciler struct {
	options Options
	feeds   []feed
	mailbox *mailbox
	metrics metrics
	built   chan struct{}

	// All below belongs to the loop's goroutine.
	outlet   outlet
	refusals refusals
	progress progress
	input    gateway.Input
	result   gateway.Result   // of the last Build
	reported gateway.Progress // in the last reports
	known    origins          // accepted before this process started
	now      generations
	told     map[fleet.RouteRef]words // by statuses
	started  time.Time
	first    bool
}

// New makes a Reconciler.
func New(options Options) *Reconciler {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	kinds := feeds()
	return &Reconciler{
		options: options, feeds: kinds, mailbox: newMailbox(len(kinds)), metrics: newMetrics(), built: make(chan struct{}), first: true,
		outlet:   outlet{publisher: options.Publisher, assigner: options.Assigner, translation: newTranslation(), ledger: newLedger()},
		refusals: newRefusals(), progress: progress{},
		input: gateway.Input{CRDVersion: options.CRDVersion},
	}
}

// NeedLeaderElection says that every replica serves edges.
func (r *Reconciler) NeedLeaderElection() bool { return false }

// Collectors are the loop's metrics, for the caller to register.
func (r *Reconciler) Collectors() []prometheus.Collector { return r.metrics.collectors() }

// Built is closed once the first Model is published.
func (r *Reconciler) Built() <-chan struct{} { return r.built }

// Acked is told what an edge took: versions by name.
func (r *Reconciler) Acked(typeURL string, versions map[string]string) {
	acks := make([]ack, 0, len(versions))
	for name, version := range versions {
		acks = append(acks, ack{resourceID{typeURL, name}, version})
	}
	r.mailbox.acked(acks)
}

// Nacked is told what an edge refused, and its words.
func (r *Reconciler) Nacked(typeURL, name, version, message string) {
	r.metrics.nacks.WithLabelValues(shortType(typeURL)).Inc()
	r.mailbox.put(func(b *mailbox) {
		b.nacks = append(b.nacks, refusal{resourceID{typeURL, name}, version, message})
	})
}

// Progressed is told that edges came, went, or have answered a snapshot.
func (r *Reconciler) Progressed() { r.mailbox.put(func(b *mailbox) { b.answers = true }) }

// Start watches, and builds until ctx ends. It returns an error where the
// caches cannot be read at all.
func (r *Reconciler) Start(ctx context.Context) error {
	if err := r.watch(ctx); err != nil {
		return err
	}
	r.run(ctx)
	return nil
}

// run builds until ctx ends.
func (r *Reconciler) run(ctx context.Context) {
	r.started = r.options.Clock.Now()
	// Look again when edges have had their time to come back.
	late := r.options.Clock.NewTimer(comeback)
	defer late.Stop()
	var p pace
	p.event(r.started)
	for {
		var timer clock.Timer
		var fires <-chan time.Time
		if due, waits := p.due(); waits {
			timer = r.options.Clock.NewTimer(due.Sub(r.options.Clock.Now()))
			fires = timer.C()
		}
		select {
		case <-ctx.Done():
			return
		case <-r.mailbox.kick:
			p.event(r.options.Clock.Now())
		case <-late.C():
			r.Progressed()
		case <-fires:
			began := r.options.Clock.Now()
			built, err := r.pass(ctx)
			switch {
			case err != nil:
				log.FromContext(ctx).Error(err, "build Gateways")
				p.built(began, began.Add(patience))
				p.event(began.Add(time.Second))
			case built:
				p.built(began, r.options.Clock.Now())
			default:
				p.looked(began, r.options.Clock.Now())
			}
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// watch has every kind that Build reads say what is to be read again, and
// waits until all of them have been read.
func (r *Reconciler) watch(ctx context.Context) error {
	var synced []toolscache.InformerSynced
	for i, f := range r.feeds {
		informer, err := r.options.Cache.GetInformer(ctx, f.object, cache.BlockUntilSynced(false)) // all at the same time
		if err != nil {
			return fmt.Errorf("watch %T: %w", f.object, err)
		}
		registration, err := informer.AddEventHandler(r.handler(i, f))
		if err != nil {
			return fmt.Errorf("watch %T: %w", f.object, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("watch what Gateways are made of: %w", context.Cause(ctx))
	}
	return nil
}

func (r *Reconciler) handler(i int, f feed) toolscache.ResourceEventHandler {
	stale := func(name fleet.ObjectName) {
		r.mailbox.put(func(b *mailbox) {
			if f.route != nil {
				b.routes.Insert(fleet.RouteRef{Kind: f.route.Kind, Name: name})
			} else {
				b.stale[i] = true
			}
		})
	}
	written := func(o client.Object) {
		if f.judged != "" {
			r.options.Reporter.Recheck(f.judged, nameOf(o))
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			written(o.(client.Object)) // one of the same name may have been judged
			stale(nameOf(o.(client.Object)))
		},
		DeleteFunc: func(o any) {
			if name, err := toolscache.DeletionHandlingObjectToName(o); err == nil {
				stale(fleet.ObjectName{Namespace: name.Namespace, Name: name.Name})
			}
		},
		UpdateFunc: func(before, after any) {
			was, is := before.(client.Object), after.(client.Object)
			if was.GetResourceVersion() == is.GetResourceVersion() {
				return
			}
			written(is)
			if f.matters(was, is) {
				stale(nameOf(is))
			}
		},
	}
}

// pass takes in what changed, builds if that can change anything, and hands
// out what came of it.
func (r *Reconciler) pass(ctx context.Context) (built bool, err error) {
	began := r.options.Clock.Now()
	l := r.mailbox.take()
	r.answers(ctx, l) // first, for they are about what was published before
	changed, err := r.gather(ctx, l)
	if err != nil {
		r.mailbox.putBack(l)
		return false, err
	}
	r.refusals.retry(r.outlet.ledger)
	r.mailbox.eager(len(r.refusals.trials) > 0)
	edges := r.edges()
	r.refusals.forget(r.outlet.serves)
	nacks := r.refusals.nacks(r.told, &r.outlet.model, r.now)
	if built = r.first || changed || !reflect.DeepEqual(nacks, r.input.Nacks); built {
		r.input.Nacks = nacks
		r.result = gateway.Build(r.input)
		r.input.Memo = r.result.Memo
		r.publish(ctx, r.result.Model)
		runtime.Gosched() // the streams that publish woke come first: a processor gives them nothing before this loop pauses
	}
	r.report(edges, built)
	if built {
		r.metrics.builds.Observe(r.options.Clock.Since(began).Seconds())
	}
	r.keep(edges)
	// What edges took or refused before they do not answer again.
	if r.refusals.waits(r.outlet.ledger) {
		r.Progressed()
	}
	return built, nil
}

// gather reads what changed.
func (r *Reconciler) gather(ctx context.Context, l letters) (changed bool, err error) {
	for i, f := range r.feeds {
		if !l.stale[i] {
			continue
		}
		if err := f.read(ctx, r.options.Cache, &r.input); err != nil {
			return false, fmt.Errorf("list %T: %w", f.object, err)
		}
		if changed = true; f.route != nil { // all of this kind are read
			for ref := range l.routes {
				if ref.Kind == f.route.Kind {
					l.routes.Delete(ref)
				}
			}
		}
	}
	if changed {
		r.now, r.told = generationsOf(&r.input), refusedOf(r.input.Routes)
	}
	if len(l.routes) > 0 {
		changed = true
		if err := r.readRoutes(ctx, l.routes); err != nil {
			return false, err
		}
	}
	if r.first {
		r.known = origins{}
		for _, route := range r.input.Routes {
			if acceptedBefore(route) {
				r.known[route.Ref] = route.Generation
			}
		}
	}
	return changed, nil
}

// readRoutes takes in what these routes are now. What was said about one that
// is gone is not said about the next of its name, whose generations begin anew.
func (r *Reconciler) readRoutes(ctx context.Context, refs sets.Set[fleet.RouteRef]) error {
	read := make(map[fleet.RouteRef]*gateway.Route, len(refs)) // nil: there is none
	for ref := range refs {
		var err error
		if read[ref], err = r.readRoute(ctx, ref); err != nil {
			return err
		}
	}
	routes, gone := slices.Clone(r.input.Routes), sets.New[fleet.RouteRef]()
	for ref, route := range read {
		delete(r.now, ref)
		delete(r.told, ref)
		at, had := findRoute(routes, ref)
		if had {
			if route == nil || routes[at].UID != route.UID {
				gone.Insert(ref)
			}
			routes = slices.Delete(routes, at, at+1)
		}
		if route != nil {
			routes = slices.Insert(routes, at, route)
			r.now[ref] = route.Generation
			maps.Copy(r.told, refusedOf(routes[at:at+1]))
		}
	}
	r.input.Routes = routes
	for o := range gone {
		delete(r.known, o)
	}
	r.refusals.outlive(gone, r.now)
	r.outlet.ledger.outlive(gone)
	return nil
}

// readRoute reads one route; nil: it does not exist.
func (r *Reconciler) readRoute(ctx context.Context, ref fleet.RouteRef) (*gateway.Route, error) {
	at := slices.IndexFunc(r.feeds, func(f feed) bool { return f.route != nil && f.route.Kind == ref.Kind })
	kind := r.feeds[at].route
	o := kind.Object.DeepCopyObject().(client.Object)
	switch err := r.options.Cache.Get(ctx, client.ObjectKey(ref.Name), o, shared); {
	case err == nil:
		return kind.Route(o), nil
	case apierrors.IsNotFound(err):
		return nil, nil
	default:
		return nil, fmt.Errorf("get %s: %w", ref, err)
	}
}

func generationsOf(in *gateway.Input) generations {
	now := make(generations, len(in.Routes)+len(in.Gateways))
	for _, route := range in.Routes {
		now[route.Ref] = route.Generation
	}
	for i := range in.Gateways {
		now[gatewayRef(nameOf(&in.Gateways[i]))] = in.Gateways[i].Generation
	}
	return now
}

// refusedOf are the routes of which their statuses say that an edge refused
// them as they are.
func refusedOf(routes []*gateway.Route) map[fleet.RouteRef]words {
	told := map[fleet.RouteRef]words{}
	for _, route := range routes {
		if message, refused := refusedByEdge(route); refused {
			told[route.Ref] = words{generation: route.Generation, message: message}
		}
	}
	return told
}

// answers takes in what edges said.
func (r *Reconciler) answers(ctx context.Context, l letters) {
	for _, a := range l.acks {
		r.outlet.ledger.ack(a.id, a.version)
	}
	for _, n := range l.nacks {
		found := r.blame(n)
		log.FromContext(ctx).Info("an edge refused a resource", "type", shortType(n.id.typeURL), "name", n.id.name, "version", n.version,
			"words", n.message, "suspects", found)
	}
	for _, n := range r.outlet.ledger.repeated() {
		r.blame(n)
	}
}

func (r *Reconciler) blame(n refusal) int {
	return r.refusals.blame(n, r.outlet.ledger, &r.outlet.model, r.known, r.now)
}

// report hands over all reports where the Result or the progress of edges is
// another one. It follows publish, which makes the progress of new Gateways.
func (r *Reconciler) report(edges map[string][]EdgeProgress, built bool) {
	progress := r.progress.programming(edges, r.options.Clock.Since(r.started) < comeback)
	if built || !reflect.DeepEqual(progress, r.reported) {
		r.reported = progress
		r.options.Reporter.Report(gateway.Report(r.result, progress))
	}
}

func (r *Reconciler) publish(ctx context.Context, m model.Model) {
	places := make([]lbsync.PoolRef, len(r.input.Pools))
	for i := range r.input.Pools {
		places[i] = lbsync.PoolRef{Pool: r.input.Pools[i].Name, Region: r.input.Pools[i].Spec.Region}
	}
	r.outlet.publish(m, places, r.now)
	for _, fault := range r.outlet.faults {
		log.FromContext(ctx).Info("a part of the configuration was left out: Envoy would refuse it", "fault", fault.String())
	}
	r.progress.published(&m, func(name fleet.ObjectName) int64 { return r.now[gatewayRef(name)] }, r.outlet.numbers())
	if r.first {
		r.first = false
		r.recall()
		close(r.built)
	}
}

// recall takes over from statuses which Gateways were programmed before this
// process started.
func (r *Reconciler) recall() {
	for i := range r.input.Gateways {
		g := &r.input.Gateways[i]
		c := meta.FindStatusCondition(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
		if c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == g.Generation {
			r.progress.remember(fleet.ObjectName{Namespace: g.Namespace, Name: g.Name})
		}
	}
}

// edges are the connected edges of every pool.
func (r *Reconciler) edges() map[string][]EdgeProgress {
	edges := make(map[string][]EdgeProgress, len(r.input.Pools))
	for i := range r.input.Pools {
		name := r.input.Pools[i].Name
		edges[name] = r.options.Publisher.Progress(name)
	}
	return edges
}

// keep tells the Keeper what EdgePools are to say.
func (r *Reconciler) keep(edges map[string][]EdgeProgress) {
	wanted := make(map[string]poolStatus, len(r.input.Pools))
	pools := func(yield func(*v1alpha1.EdgePool) bool) {
		for i := range r.input.Pools {
			if !yield(&r.input.Pools[i]) {
				return
			}
		}
	}
	for i := range r.input.Pools {
		p := &r.input.Pools[i]
		status := poolStatus{given: p.Status.Allocations, allocations: p.Status.Allocations, edges: len(edges[p.Name])}
		if decides := v1alpha1.NearestOf(pools, p.Spec.Region); len(p.Spec.Nearest) > 0 && !slices.Equal(p.Spec.Nearest, decides.Spec.Nearest) {
			status.region, status.decides = p.Spec.Region, decides.Name
		}
		wanted[p.Name] = status
	}
	for _, p := range gateway.Allocate(r.input) {
		status := wanted[p.Name]
		status.allocations = p.Status.Allocations
		wanted[p.Name] = status
	}
	r.options.Keeper.want(wanted)
}
