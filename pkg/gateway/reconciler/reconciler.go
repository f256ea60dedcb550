package reconciler

import (
	"context"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// Reporter takes reports (condition/writer.Source). It does not block.
type Reporter interface {
	// Report replaces all reports.
	Report([]condition.Report)
	// Recheck compares an object that somebody wrote to with its report.
	Recheck(condition.Kind, fleet.ObjectName)
}

// Publisher gives resources to the edges of a pool. Its methods do not wait
// for an edge.
type Publisher interface {
	// Publish replaces all but the load assignments of a pool.
	Publish(rollout.Snapshot)
	// Progress is how far each connected edge of a pool is.
	Progress(pool string) []rollout.EdgeProgress
	// Withdraw forgets a pool that is gone.
	Withdraw(pool string)
}

// Assigner makes load assignments. It gets an assignment before the cluster
// that needs it is published.
type Assigner interface {
	SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy)
}

// Imports takes what the exports of services are merged to; nil: no member exports
// the service. Its method does not block. The first call has all services.
type Imports interface {
	Merged(changed map[fleet.ServiceName]*v1alpha1.FleetServiceSpec)
}

const (
	// idleDelay is how long no event must come before a build during a burst: one
	// change often is several objects that arrive together.
	idleDelay = 2 * time.Millisecond
	// maxDelay is the longest that a change waits for a burst to end.
	maxDelay = 50 * time.Millisecond
	// cooldownFactor: after a build that took d, the next waits for
	// cooldownFactor*d (at most maxDelay), so that steady change uses at most a
	// fifth of a core.
	cooldownFactor = 4
	// retryDelay follows a pass that could not read a cache.
	retryDelay = time.Second
	// ReconnectGrace is how long edges may take to reconnect after the hub
	// started. For that long a Gateway that was programmed counts as such.
	ReconnectGrace = 10 * time.Second
)

// Options are what a Reconciler works with. Cache, Merges, Publisher, Assigner and both Reporters must be set.
type Options struct {
	Cache     cache.Cache
	Merges    Merges
	Publisher Publisher
	Assigner  Assigner
	Reporter  Reporter
	// PoolReporter takes the reports on EdgePools.
	PoolReporter Reporter
	// Imports takes each merge of exports, before a Build with it. Nil: nobody does.
	Imports Imports
	// Events takes an Event for each object that an edge rejects. Nil: none.
	Events events.EventRecorder
	// Leads says whether this replica leads now: only the leader emits Events about routes.
	// Nil: it always does.
	Leads func() bool
	// CRDVersion and SecretNamespaces are those of gateway.Input.
	CRDVersion       string
	SecretNamespaces []string
	// Clock gives times. Nil: the real one.
	Clock clock.Clock
	// Records keeps what edges refuse for a hub that restarts. Nil: nothing is kept.
	Records *Records
	// Replicas has what edges of other replicas answered. Nil: there is no other one.
	Replicas *Replicas
}

// Reconciler is the loop. It is a Runnable that every replica runs.
type Reconciler struct {
	options Options
	kinds   []watchedKind
	inbox   *batch.Inbox[pending]
	metrics metrics
	built   chan struct{} // closed once the first Model is published

	// All below belongs to the loop's goroutine.
	imports  *imports
	rollout  *rollout.Rollout
	input    gateway.Input
	result   gateway.Result    // of the last Build
	earlier  gateway.Earlier   // what was accepted last of routes that changed since
	reported gateway.Progress  // in the last reports
	refused  []gateway.Refusal // in the last reports
	recorded bool              // refusals are those of the last records
	refusals []rollout.Refusal
	limits   map[string]*rate.Limiter // of logs and Events about each pool
	own      rollout.Answers          // of this replica's edges
	silent   []SilentReplica
	unread   map[string]string // what other replicas say and this one cannot read; said once
	started  time.Time
	first    bool // nothing is published yet
}

// New makes a Reconciler.
func New(options Options) *Reconciler {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	r := &Reconciler{
		options: options, metrics: newMetrics(), built: make(chan struct{}), first: true,
		imports: &imports{merges: options.Merges, observer: options.Imports},
		rollout: rollout.New(), earlier: gateway.Earlier{}, limits: map[string]*rate.Limiter{}, input: gateway.Input{CRDVersion: options.CRDVersion, SecretNamespaces: options.SecretNamespaces},
	}
	r.watchKinds(watchedKinds(r.imports))
	if options.Replicas != nil {
		options.Replicas.onChange(r.Progressed)
	}
	return r
}

// watchKinds sets which kinds are watched, all of which are to be listed.
func (r *Reconciler) watchKinds(kinds []watchedKind) {
	r.kinds = kinds
	r.inbox = batch.NewInbox(func() pending { return newPending(len(kinds)) })
	r.inbox.AddIf(func(p *pending) bool { p.staleAll(); return false })
}

// NeedLeaderElection says that every replica serves edges.
func (r *Reconciler) NeedLeaderElection() bool { return false }

// Collectors are the loop's metrics, for the caller to register.
func (r *Reconciler) Collectors() []prometheus.Collector { return r.metrics.collectors() }

// Built is closed once the first Model is published.
func (r *Reconciler) Built() <-chan struct{} { return r.built }

// Start watches, and builds until ctx ends. It returns an error if the caches
// cannot be read at all.
func (r *Reconciler) Start(ctx context.Context) error {
	if err := r.watch(ctx); err != nil {
		return err
	}
	r.run(ctx)
	return nil
}

// run handles what is pending until ctx ends. Four things can happen: ctx ends,
// something is pending, the Pace says that it is time for a pass, or edges have
// had their time to reconnect (nextCheck).
func (r *Reconciler) run(ctx context.Context) {
	r.started = r.options.Clock.Now()
	check := r.options.Clock.NewTimer(ReconnectGrace)
	defer check.Stop()
	pace := batch.Pace{IdleDelay: idleDelay, MaxDelay: maxDelay, CooldownFactor: cooldownFactor}
	pace.Event(r.started)
	for {
		var timer clock.Timer
		var due <-chan time.Time
		if at, waits := pace.Due(); waits {
			timer = r.options.Clock.NewTimer(at.Sub(r.options.Clock.Now()))
			due = timer.C()
		}
		select {
		case <-ctx.Done():
			return
		case <-r.inbox.Wake():
			pace.Event(r.options.Clock.Now())
		case <-check.C():
			r.Progressed()
		case <-due:
			r.pacedPass(ctx, &pace)
			check.Reset(r.nextCheck().Sub(r.options.Clock.Now()))
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// pacedPass runs a pass and tells the Pace what it cost.
func (r *Reconciler) pacedPass(ctx context.Context, pace *batch.Pace) {
	began := r.options.Clock.Now()
	built, err := r.pass(ctx)
	switch {
	case err != nil:
		log.FromContext(ctx).Error(err, "could not build Gateways")
		pace.Ran(began, began.Add(maxDelay))
		pace.Event(began.Add(retryDelay))
	case built:
		pace.Ran(began, r.options.Clock.Now())
	default:
		pace.Skipped(began, r.options.Clock.Now())
	}
}

// pass takes in what is pending, builds if that can change anything, and hands
// over the results.
func (r *Reconciler) pass(ctx context.Context) (built bool, err error) {
	began := r.options.Clock.Now()
	p := r.inbox.Drain()
	for _, dump := range p.dumps {
		dump()
	}
	before := r.input.Routes
	changed, err := r.gather(ctx, p)
	if err != nil {
		r.input.Routes = before // so that the next pass notes what changed
		r.requeue(p)
		return false, err
	}
	if p.crdVersion != "" && p.crdVersion != r.input.CRDVersion {
		r.input.CRDVersion, changed = p.crdVersion, true
	}
	if r.first {
		if err := r.restoreRefusals(ctx); err != nil {
			r.requeue(p)
			return false, err
		}
	}
	r.earlier.Note(r.result, before, r.input.Routes)
	edges := r.edges()
	r.hearReplicas(ctx)
	reviewed := r.rollout.Review(edges)
	r.announce(ctx, reviewed)
	if built = r.first || changed || reviewed.Changed; built {
		last := r.result
		r.result = r.earlier.Build(&r.input)
		r.setServed(last)
		r.publish(ctx, r.result.Model, r.viewModels(reviewed.Views))
		runtime.Gosched() // let the streams that publish woke run first: there may be one processor
	}
	own := r.answers(edges)
	r.report(ctx, own, built)
	if built {
		r.metrics.builds.Observe(r.options.Clock.Since(began).Seconds())
	}
	r.options.PoolReporter.Report(r.poolReports(own))
	r.tellReplicas(ctx, own)
	if r.rollout.HasWork() || r.options.Replicas != nil && r.rollout.Unsaid() { // no edge will answer, so nothing else wakes the loop
		r.Progressed()
	}
	return built, nil
}

// viewModels are the Models of the edges that refuse something: Builds in which
// earlier versions of the routes that they refuse are in the place of the present
// ones. They share with the last Build what is the same.
func (r *Reconciler) viewModels(views []rollout.View) []model.Model {
	models := make([]model.Model, len(views))
	for i, view := range views {
		in := r.input
		in.Routes = slices.Clone(in.Routes)
		for ref, instead := range view.Instead {
			at, found := findRoute(in.Routes, ref)
			switch {
			case !found:
			case instead == nil:
				in.Routes = slices.Delete(in.Routes, at, at+1)
			default:
				in.Routes[at] = gateway.InsteadOf(r.objectOf(in.Routes[at]).Source.(*gateway.Route), instead.(*gateway.Route))
			}
		}
		models[i] = gateway.Build(in).Model
	}
	return models
}

// publish hands over what is new in a Model and in those of Views.
func (r *Reconciler) publish(ctx context.Context, m model.Model, views []model.Model) {
	pools := make([]lbsync.PoolRef, len(r.input.Pools))
	for i := range r.input.Pools {
		pools[i] = lbsync.PoolRef{Pool: r.input.Pools[i].Name, Region: r.input.Pools[i].Spec.Region}
	}
	changes := r.rollout.Publish(m, views, pools)
	if changes.AssignmentsChanged {
		r.options.Assigner.SetAssignments(changes.Assignments, m.Imports)
	}
	for _, snapshot := range changes.Snapshots {
		r.options.Publisher.Publish(snapshot)
	}
	for _, pool := range changes.Withdrawn {
		r.options.Publisher.Withdraw(pool)
		r.metrics.refusing.DeleteLabelValues(pool)
		delete(r.limits, pool)
	}
	for _, fault := range changes.Faults {
		log.FromContext(ctx).Info("a part of the configuration was left out: Envoy would refuse it", "fault", fault.String())
	}
	if r.first {
		r.first = false
		close(r.built)
	}
}

// report hands over all reports if the Result or the progress of edges is new.
// It follows publish, which starts the rollout of new Gateways.
func (r *Reconciler) report(ctx context.Context, own rollout.Answers, built bool) {
	reconnecting := r.reconnecting()
	progress := gateway.Progress{}
	for name, p := range r.rollout.Progress(own, reconnecting) {
		progress[name] = gateway.Programming{Generation: p.Generation, Connected: p.Connected, Acked: p.Acked, Unserved: p.Unserved,
			Refused: p.Refused, Message: p.Message, Early: reconnecting}
	}
	refusals := r.rollout.Refusals()
	refused := make([]gateway.Refusal, len(refusals))
	for i, f := range refusals {
		refused[i] = gateway.Refusal{Ref: condition.Ref{Kind: f.Ref.Kind, Name: f.Ref.Name, Generation: f.Version.Generation}, PoolRefusal: poolRefusal(f)}
	}
	if built || !reflect.DeepEqual(progress, r.reported) || !slices.Equal(refused, r.refused) {
		r.reported, r.refused = progress, refused
		r.options.Reporter.Report(gateway.Report(r.result, progress, refused...))
	}
	r.record(ctx, append(r.rollout.Records(), r.keptRecords()...))
}

// edges are the connected edges of every pool.
func (r *Reconciler) edges() map[string][]rollout.EdgeProgress {
	edges := make(map[string][]rollout.EdgeProgress, len(r.input.Pools))
	for i := range r.input.Pools {
		name := r.input.Pools[i].Name
		edges[name] = r.options.Publisher.Progress(name)
	}
	return edges
}

// reconnecting: this process has just started, and edges may not have found it yet.
func (r *Reconciler) reconnecting() bool { return r.options.Clock.Since(r.started) < ReconnectGrace }
