package program

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// A leader that could not renew its Lease for renewDeadline stops writing.
	// Others may lead after leaseDuration, so it has the difference to stop.
	// These are client-go's and controller-runtime's defaults.
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	// releaseTimeout is how long giving back the Lease may hold up the end of a
	// program. A Lease that is not given back ends by itself.
	releaseTimeout = 2 * time.Second
	// reconcileTimeout is how long one key may take. Without it an API server that
	// accepts connections and never answers would hold all workers.
	reconcileTimeout = 20 * time.Second
)

// LeaderElection is how replicas of a program elect the one that writes.
type LeaderElection struct {
	// Enabled says that there may be other replicas. Otherwise this one leads.
	Enabled bool
	// Namespace and Name are those of the Lease.
	Namespace, Name string
	// Pod is the name of the replica's pod: the leader is a pod, not a process.
	// A process that is restarted in its pod leads again at once, instead of
	// after 15 s, when the Lease of the dead process ends. Two processes of one
	// pod never run at the same time. Empty: a random name.
	Pod string
	// Ready is closed once this replica may lead. Nil: at once.
	Ready <-chan struct{}
	// Before runs when this replica was elected, and its term begins when Before
	// returns. It ends when ctx does. Nil: the term begins at once.
	Before func(ctx context.Context)
}

// Leadership says whether this replica leads, which it does for terms: losing
// the Lease ends a term and not the program. It is a manager's Runnable on every
// replica, and the only way in which a writer learns that it may write. A nil
// Leadership always leads.
//
// controller-runtime's own election ends the process when the Lease is lost, and
// with it everything that needs no API server.
type Leadership struct {
	ready  <-chan struct{}
	before func(ctx context.Context) // nil: nothing
	lock   resourcelock.Interface    // nil: no election
	name   string

	mu    sync.Mutex // guards the rest
	term  *term      // nil: this replica does not lead
	begun chan struct{}
	late  map[<-chan struct{}]bool // of writers whose context has ended; closed when the writer has
}

// term is a time in which this replica leads.
type term struct {
	context.Context
	end     context.CancelFunc
	writers sync.WaitGroup
}

// New makes a Leadership. It sends no request.
func (e LeaderElection) New(config *rest.Config) (*Leadership, error) {
	l := &Leadership{ready: e.Ready, before: e.Before, name: e.Name, begun: make(chan struct{})}
	if !e.Enabled {
		return l, nil
	}
	lock, err := e.lock(config)
	l.lock = lock
	return l, err
}

func (e LeaderElection) lock(config *rest.Config) (resourcelock.Interface, error) {
	host, _ := os.Hostname() // only for people who read the Lease
	identity := resourcelock.ResourceLockConfig{Identity: cmp.Or(e.Pod, host+"_"+string(uuid.NewUUID()))}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, e.Namespace, e.Name, identity, config, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("make the leader election lock %s/%s: %w", e.Namespace, e.Name, err)
	}
	return lock, nil
}

func (l *Leadership) log() logr.Logger { return ctrl.Log.WithName("leadership") }

// NeedLeaderElection says that every replica stands for election.
func (l *Leadership) NeedLeaderElection() bool { return false }

// Start leads, term after term, until ctx ends.
func (l *Leadership) Start(ctx context.Context) error {
	if l.ready != nil {
		select {
		case <-l.ready:
		case <-ctx.Done():
			return nil
		}
	}
	if l.lock == nil {
		l.begin(ctx)
		<-ctx.Done()
		l.end()
		return nil
	}
	for ctx.Err() == nil {
		if err := l.stand(ctx); err != nil {
			return err
		}
	}
	l.release()
	return nil
}

// stand stands for election, and leads for one term. client-go cancels the
// context of OnStartedLeading before it calls OnStoppedLeading, and calls the
// former in a goroutine of its own, maybe after the latter.
func (l *Leadership) stand(ctx context.Context) error {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l.lock, Name: l.name, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: l.begin, OnStoppedLeading: l.end},
	})
	if err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	elector.Run(ctx)
	return nil
}

// begin begins a term, unless ctx has ended.
func (l *Leadership) begin(ctx context.Context) {
	if l.before != nil {
		l.before(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	l.term = &term{}
	l.term.Context, l.term.end = context.WithCancel(ctx)
	close(l.begun)
	l.log().Info("this replica leads: it writes to the API server")
}

// end ends the term and waits for its writers.
func (l *Leadership) end() {
	l.mu.Lock()
	ended := l.term
	if ended != nil {
		l.term, l.begun = nil, make(chan struct{})
		l.log().Info("this replica no longer leads: it writes nothing, and goes on with all else")
	}
	l.mu.Unlock()
	if ended != nil {
		ended.end()
		ended.writers.Wait()
	}
}

// release gives the Lease back if this replica has it, after the writers have
// ended. client-go's ReleaseOnCancel does so before: in a term that ends because
// the API server is slow, two replicas could then write.
func (l *Leadership) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	record, _, err := l.lock.Get(ctx)
	if err != nil || record.HolderIdentity != l.lock.Identity() {
		return
	}
	now := metav1.Now()
	record.HolderIdentity, record.LeaseDurationSeconds, record.RenewTime, record.AcquireTime = "", 1, now, now
	if err := l.lock.Update(ctx, *record); err != nil {
		l.log().Info("could not give back the Lease; it ends by itself", "reason", err.Error())
	}
}

// Leads says whether this replica leads now. It does not block.
func (l *Leadership) Leads() bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != nil
}

// Join waits until this replica leads, and returns the context of the term for
// one writer, which calls leave when it has ended. ok is false if ctx ended first.
func (l *Leadership) Join(ctx context.Context) (writer context.Context, leave func(), ok bool) {
	if l == nil {
		return ctx, func() {}, ctx.Err() == nil
	}
	for ctx.Err() == nil {
		l.mu.Lock()
		current, begun := l.term, l.begun
		if current != nil {
			current.writers.Add(1)
		}
		l.mu.Unlock()
		if current != nil {
			writer, cancel := context.WithCancel(ctx)
			unlink, ended := context.AfterFunc(current, cancel), l.awaitEnd(writer)
			return writer, func() { ended(); unlink(); cancel(); current.writers.Done() }, true
		}
		select {
		case <-begun:
		case <-ctx.Done():
		}
	}
	return nil, nil, false
}

// awaitEnd makes Ping wait for a writer from when its context ends until it says that it has ended.
func (l *Leadership) awaitEnd(writer context.Context) (ended func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(writer, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case <-done:
		default:
			if l.late == nil {
				l.late = map[<-chan struct{}]bool{}
			}
			l.late[done] = true
		}
	})
	return func() {
		stop()
		l.mu.Lock()
		defer l.mu.Unlock()
		close(done)
		delete(l.late, done)
	}
}

// Ping returns once the writers whose context has ended have ended as well, or with an error when ctx ends. One that is
// stuck never does, and this replica would never lead again. A nil Leadership has no terms, and watches nobody.
func (l *Leadership) Ping(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	late := slices.Collect(maps.Keys(l.late))
	l.mu.Unlock()
	for _, ended := range late {
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for a writer to end: %w", context.Cause(ctx))
		}
	}
	return nil
}

// EachTerm is a Runnable of every replica that runs another one in each term. The
// other must be one that can be started again.
func (l *Leadership) EachTerm(r manager.Runnable) manager.Runnable { return eachTerm{l, r} }

type eachTerm struct {
	leadership *Leadership
	manager.Runnable
}

func (eachTerm) NeedLeaderElection() bool { return false }

func (e eachTerm) Start(ctx context.Context) error {
	for {
		writer, leave, ok := e.leadership.Join(ctx)
		if !ok {
			return nil
		}
		err := e.Runnable.Start(writer)
		if err != nil && writer.Err() == nil {
			leave()
			return err
		}
		<-writer.Done()
		leave()
	}
}

// Reconciler makes r one that works in terms only. A controller with it lives as
// long as the program: its workers wait for the next term, and its queue keeps
// what is to do.
func (l *Leadership) Reconciler(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		writer, leave, ok := l.Join(ctx)
		if !ok {
			return reconcile.Result{}, nil // the program ends
		}
		defer leave()
		limited, cancel := context.WithTimeout(writer, reconcileTimeout)
		defer cancel()
		if l != nil {
			defer l.awaitEnd(limited)()
		}
		result, err := r.Reconcile(limited, request)
		if err != nil && writer.Err() != nil {
			return reconcile.Result{RequeueAfter: time.Millisecond}, nil // the next term begins with it
		}
		return result, err
	})
}
