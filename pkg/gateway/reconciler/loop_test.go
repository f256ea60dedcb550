package reconciler

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

type noReporter struct{}

func (noReporter) Report([]condition.Report)                {}
func (noReporter) Recheck(condition.Kind, fleet.ObjectName) {}

// watchedClock counts the timers that the loop sets: one for each event or
// build, once it has taken that in.
type watchedClock struct {
	*clocktesting.FakeClock
	timers atomic.Int32
}

func (c *watchedClock) NewTimer(d time.Duration) clock.Timer {
	defer c.timers.Add(1)
	return c.FakeClock.NewTimer(d)
}

// loop is a Reconciler of one kind of object, on a clock that the test moves.
type loop struct {
	*testing.T
	clock *watchedClock
	loop  *Reconciler
	lists chan error // one for each time the kind is listed; what to answer
}

func newLoop(t *testing.T) loop {
	l := loop{T: t, clock: &watchedClock{FakeClock: clocktesting.NewFakeClock(noon)}, lists: make(chan error)}
	kind := watchedKind{list: func(ctx context.Context, _ client.Reader, _ *gateway.Input) error {
		select {
		case err := <-l.lists:
			return err
		case <-ctx.Done():
			return nil
		}
	}}
	edges := &sink{}
	r := New(Options{Publisher: edges, Assigner: edges, Reporter: noReporter{}, PoolReporter: noReporter{}, Clock: l.clock})
	r.watchKinds([]watchedKind{kind})
	l.loop = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// event is a change of the kind. The loop has it before event returns.
func (l loop) event() { l.add(func(p *pending) { p.stale[0] = true }) }

func (l loop) add(change func(*pending)) {
	l.Helper()
	before := l.clock.timers.Load()
	l.loop.inbox.Add(change)
	l.await(func() bool { return l.clock.timers.Load() > before })
}

func (l loop) await(condition func() bool) {
	l.Helper()
	err := wait.PollUntilContextTimeout(l.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		l.Fatal("the loop does not move: ", err)
	}
}

// built says that a build begins now, and what listing gives it.
func (l loop) built(answer error) {
	l.Helper()
	select {
	case l.lists <- answer:
	case <-time.After(10 * time.Second):
		l.Fatal("no build")
	}
}

func (l loop) idle() {
	l.Helper()
	select {
	case l.lists <- nil:
		l.Fatal("a build, too early")
	case <-time.After(20 * time.Millisecond):
	}
}

// An event after a pause is built at once, also if edges have just answered; events within 2 ms soon after are one
// build; a storm is built after 50 ms although it goes on.
func TestBatches(t *testing.T) {
	l := newLoop(t)
	l.await(func() bool { return l.clock.timers.Load() == 2 }) // the first build's, and the one for late edges
	l.clock.Step(0)
	l.built(nil) // the first, of everything

	l.event()
	l.clock.Step(idleDelay - time.Microsecond)
	l.idle()
	l.clock.Step(time.Microsecond)
	l.built(nil)
	l.idle() // it has noted when that ended

	l.clock.Step(2 * maxDelay)
	l.event()
	l.clock.Step(0)
	l.built(nil)
	l.idle()

	l.clock.Step(2 * maxDelay)
	l.add(func(p *pending) { p.progress = true })
	l.clock.Step(0)
	l.await(func() bool {
		taken := false
		l.loop.inbox.AddIf(func(p *pending) bool { taken = !p.progress; return false })
		return taken
	})
	l.idle() // it has looked, and there was nothing to build
	l.clock.Step(maxDelay / 2)
	l.event()
	l.clock.Step(0)
	l.built(nil)

	l.event()
	for range int(maxDelay/time.Millisecond) - 1 { // each before the last is quiet
		l.clock.Step(time.Millisecond)
		l.event()
	}
	l.idle()
	l.clock.Step(time.Millisecond)
	l.built(nil)
	l.idle()
}

// Reads that failed are pending again, with what came since.
func TestRequeue(t *testing.T) {
	r := New(Options{})
	r.watchKinds(make([]watchedKind, 2))
	r.inbox.Drain()
	add := func(kind int, route string) {
		r.inbox.Add(func(p *pending) {
			p.stale[kind] = true
			p.routes.Insert(routeRef(route))
			p.services.Insert(fleet.ServiceName{Name: route})
			p.progress = true
		})
	}
	add(0, "a")
	failed := r.inbox.Drain()
	add(1, "b")
	r.requeue(failed)
	want := pending{stale: []bool{true, true}, routes: sets.New(routeRef("a"), routeRef("b")), services: sets.New(fleet.ServiceName{Name: "a"}, fleet.ServiceName{Name: "b"}), progress: true}
	if got := r.inbox.Drain(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := r.inbox.Drain(); !reflect.DeepEqual(got, newPending(2)) {
		t.Errorf("twice: %+v", got)
	}
}

// A cache that cannot be listed costs a second, and no event.
func TestListFails(t *testing.T) {
	l := newLoop(t)
	l.await(func() bool { return l.clock.timers.Load() == 2 }) // the first build's, and the one for late edges
	l.clock.Step(idleDelay)
	l.built(errors.New("no"))
	l.await(func() bool { return l.clock.timers.Load() == 3 })
	l.idle()
	l.clock.Step(2 * time.Second)
	l.built(nil)
}

// An idle loop answers a Ping, and one that is stuck does not.
func TestPing(t *testing.T) {
	l := newLoop(t)
	l.await(func() bool { return l.clock.timers.Load() == 2 })
	l.clock.Step(0)
	l.built(nil)
	ping := func(limit time.Duration) chan error {
		answer := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(l.Context(), limit)
			defer cancel()
			answer <- l.loop.Ping(ctx)
		}()
		return answer
	}
	idle := ping(10 * time.Second)
	l.await(func() bool {
		l.clock.Step(maxDelay)
		select {
		case err := <-idle:
			return err == nil
		default:
			return false
		}
	})
	l.event()
	l.clock.Step(maxDelay)         // it lists, and gets no answer
	<-ping(100 * time.Millisecond) // it may come before that
	if err := <-ping(100 * time.Millisecond); err == nil {
		t.Error("a loop that is stuck answers")
	}
	l.built(nil)
}
