package program

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/internal/testkit"
)

// lease is a Lease on an API server that can be frozen: requests then end with
// their context only.
type lease struct {
	mu     sync.Mutex
	frozen bool
	record *resourcelock.LeaderElectionRecord
	// released is called when a leader gives the Lease back. Nil: nothing is.
	released func()
}

func (l *lease) freeze(frozen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = frozen
}

func (l *lease) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.HolderIdentity
}

// lockOf is one replica's view of a Lease.
type lockOf struct {
	*lease
	pod string
}

func (l lockOf) wait(ctx context.Context) error {
	l.mu.Lock()
	frozen := l.frozen
	l.mu.Unlock()
	if !frozen {
		return nil
	}
	timeout, cancel := context.WithTimeout(ctx, renewDeadline/2) // as the real lock's client has
	defer cancel()
	<-timeout.Done()
	return timeout.Err()
}

func (l lockOf) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	if err := l.wait(ctx); err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record == nil {
		return nil, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, "l")
	}
	record := *l.record
	raw, err := json.Marshal(record)
	return &record, raw, err
}

func (l lockOf) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.Update(ctx, r)
}

func (l lockOf) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record = &r
	if r.HolderIdentity == "" && l.released != nil {
		l.released()
	}
	return nil
}

func (l lockOf) RecordEvent(string) {}
func (l lockOf) Identity() string   { return l.pod }
func (l lockOf) Describe() string   { return l.pod }

func replica(of *lease, pod string) *Leadership {
	return &Leadership{lock: lockOf{of, pod}, name: "test", begun: make(chan struct{})}
}

// writers counts the writers of all replicas that run, and fails where those of two
// replicas run at once.
type writers struct {
	t       *testing.T
	running atomic.Int32
	terms   atomic.Int32
}

func (w *writers) of(l *Leadership) manager.Runnable {
	return l.EachTerm(manager.RunnableFunc(func(ctx context.Context) error {
		if w.running.Add(1) > 1 {
			w.t.Error("two replicas write at once")
		}
		w.terms.Add(1)
		<-ctx.Done()
		time.Sleep(time.Second) // what was begun ends
		w.running.Add(-1)
		return nil
	}))
}

// An API server that does not answer ends the term and not the program: the writers
// end before another replica can lead, and the same replica leads again afterwards.
// A program that ends gives its Lease back once its writers have ended.
func TestFrozenAPIServerEndsTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := &lease{}, &writers{t: t}
		store.released = func() {
			if w.running.Load() != 0 {
				t.Error("the Lease is given back while a writer runs")
			}
		}
		ctx, end := context.WithCancel(t.Context())
		var all sync.WaitGroup
		run := func(r manager.Runnable) { all.Go(func() { testkit.Must(t, r.Start(ctx)) }) }
		a, b := replica(store, "a"), replica(store, "b")
		run(a)
		time.Sleep(time.Second)
		run(b)
		run(w.of(a))
		run(w.of(b))
		time.Sleep(5 * time.Second)
		if !a.Leads() || b.Leads() || w.running.Load() != 1 {
			t.Fatalf("a leads: %v, b leads: %v, %d writers", a.Leads(), b.Leads(), w.running.Load())
		}
		store.freeze(true)
		time.Sleep(leaseDuration)
		if a.Leads() || b.Leads() || w.running.Load() != 0 {
			t.Errorf("in the freeze a leads: %v, b leads: %v, %d writers", a.Leads(), b.Leads(), w.running.Load())
		}
		time.Sleep(time.Minute)
		store.freeze(false)
		time.Sleep(leaseDuration + renewDeadline)
		if a.Leads() == b.Leads() || w.running.Load() != 1 {
			t.Errorf("after the freeze a leads: %v, b leads: %v, %d writers", a.Leads(), b.Leads(), w.running.Load())
		}
		end()
		all.Wait()
		if got := store.holder(); got != "" || w.running.Load() != 0 {
			t.Errorf("at the end the Lease is held by %q, and %d writers run", got, w.running.Load())
		}
	})
}

// A thousand terms leave nothing behind.
func TestTermsLeaveNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := &lease{}, &writers{t: t}
		l := replica(store, "a")
		ctx, end := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { testkit.Must(t, l.Start(ctx)) })
		all.Go(func() { testkit.Must(t, w.of(l).Start(ctx)) })
		reconciler := l.Reconciler(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			<-ctx.Done()
			return reconcile.Result{}, ctx.Err()
		}))
		all.Go(func() {
			for ctx.Err() == nil {
				_, _ = reconciler.Reconcile(ctx, reconcile.Request{})
			}
		})
		term := func() {
			for !l.Leads() {
				time.Sleep(time.Second)
			}
			store.freeze(true)
			for l.Leads() {
				time.Sleep(time.Second)
			}
			store.freeze(false)
		}
		term()
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			term()
		}
		synctest.Wait()
		if after := runtime.NumGoroutine(); after > before+10 {
			t.Errorf("%d goroutines after the first term, %d after 1,000 more", before, after)
		}
		if n := w.terms.Load(); n < 1000 {
			t.Errorf("%d terms, want 1,000", n)
		}
		end()
		all.Wait()
	})
}

// Nobody stands for election before it is ready.
func TestNobodyLeadsBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []*Leadership{replica(&lease{}, "a"), {begun: make(chan struct{})}} {
			ready := make(chan struct{})
			l.ready = ready
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- l.Start(ctx) }()
			time.Sleep(time.Minute)
			if l.Leads() {
				t.Error("it leads and is not ready")
			}
			close(ready)
			time.Sleep(renewDeadline)
			if !l.Leads() {
				t.Error("it is ready and does not lead")
			}
			end()
			testkit.Must(t, <-ended)
			if l.Leads() {
				t.Error("it leads after its end")
			}
		}
	})
}

// A key whose reconciliation the end of a term interrupts comes again. An error of its own is
// returned.
func TestReconcilerWaitsForTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Leadership{begun: make(chan struct{})}
		broken := errors.New("broken")
		reconciler := l.Reconciler(reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
			if r.Name == "broken" {
				return reconcile.Result{}, broken
			}
			<-ctx.Done()
			return reconcile.Result{}, ctx.Err()
		}))
		type answer struct {
			result reconcile.Result
			err    error
		}
		ask := func(name string) chan answer {
			answers := make(chan answer, 1)
			request := reconcile.Request{}
			request.Name = name
			go func() {
				result, err := reconciler.Reconcile(t.Context(), request)
				answers <- answer{result, err}
			}()
			synctest.Wait()
			return answers
		}
		waits := ask("broken")
		if len(waits) != 0 {
			t.Fatal("it reconciles without leading")
		}
		l.begin(t.Context())
		if got := <-waits; !errors.Is(got.err, broken) {
			t.Errorf("an error of its own: %+v", got)
		}
		interrupted := ask("slow")
		l.end()
		if got := <-interrupted; got.err != nil || got.result.RequeueAfter == 0 {
			t.Errorf("interrupted: %+v, want the key to come again", got)
		}
		l.begin(t.Context())
		if got := <-ask("slow"); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("a key that takes too long: %+v", got)
		}
	})
}

// A reconcile that goes on when its time is over is noticed, and so is one that goes on after the term. One that ends, or
// that waits for the next term, is not.
func TestPingNoticesAWriterThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := &lease{}
		l := replica(of, "a")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Start(ctx) }()
		stuck := make(chan struct{})
		r := l.Reconciler(reconcile.Func(func(limited context.Context, request reconcile.Request) (reconcile.Result, error) {
			<-limited.Done()
			if request.Name == "stuck" {
				<-stuck
			}
			return reconcile.Result{}, limited.Err()
		}))
		w := &Watchdog{Pings: map[string]func(context.Context) error{"a writer": l.Ping}}
		go func() { _ = w.Start(ctx) }()
		one := func(name string) {
			_, _ = r.Reconcile(ctx, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
		healthy := func(want bool, what string) {
			t.Helper()
			if err := w.Check(nil); (err == nil) != want {
				t.Errorf("%s: %v", what, err)
			}
		}
		go one("slow")
		go one("stuck")
		time.Sleep(reconcileTimeout + pingInterval)
		healthy(true, "at the end of its time")
		time.Sleep(maxSilence + time.Second)
		healthy(false, "30 s later")
		stuck <- struct{}{}
		time.Sleep(time.Second)
		healthy(true, "it has ended")

		go one("stuck")
		time.Sleep(time.Second)
		of.freeze(true)
		time.Sleep(leaseDuration)
		go one("slow") // waits for a term
		time.Sleep(pingInterval + maxSilence + time.Second)
		healthy(false, "the term does not end")
		stuck <- struct{}{}
		time.Sleep(time.Second)
		healthy(true, "the term has ended")
		time.Sleep(time.Hour)
		healthy(true, "an API server that does not answer")
		cancel()
		testkit.Must(t, <-ended)
		time.Sleep(time.Minute)
	})
}
