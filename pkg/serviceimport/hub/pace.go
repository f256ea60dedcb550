package hub

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// statusInterval is the shortest time between two writes of the status of an export.
	// Flapping exports conflict anew each time, which all exports of the service say.
	statusInterval = time.Second

	// changeRate is how many changes of services per second one member may cause for
	// long. It may cause changeBurst at once, such as when it joins or deploys all it has.
	// Of these, all but a few wait for the changes of other members.
	changeRate  = 10
	changeBurst = 500
	promptBurst = 20
	afterOthers = handler.LowPriority

	// maxDelay is the longest that a change waits, and the most that one member's changes
	// can be behind: 600 services. What comes beyond it is behind the changes of all others
	// nevertheless, and a service that waits waits once. So a member that has made services
	// of ever new names for hours is handled as before a minute after it ends.
	maxDelay = time.Minute

	maxPastWrites = 1000 // that are remembered

	// dueInterval is how often services are forgotten that no longer wait.
	dueInterval = time.Minute
)

// statusPace says when the statuses of a service's exports may be written again. The
// zero value may be used, by any goroutine.
type statusPace struct {
	mu   sync.Mutex
	last map[fleet.ServiceName]time.Time // of lately
}

func (p *statusPace) written(service fleet.ServiceName, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[fleet.ServiceName]time.Time{}
	}
	if len(p.last) > maxPastWrites {
		for s, at := range p.last {
			if now.Sub(at) >= statusInterval {
				delete(p.last, s)
			}
		}
	}
	p.last[service] = now
}

// delay is how long to wait; 0: they may be written now.
func (p *statusPace) delay(service fleet.ServiceName, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.last[service]
	if !ok {
		return 0
	}
	return max(statusInterval-now.Sub(last), 0)
}

// memberPace queues what members change so that one that changes much delays itself
// and nobody else. A service that is waiting costs nothing more. Any goroutine may use
// it.
type memberPace struct {
	now func() time.Time

	mu      sync.Mutex
	members map[string]*paceOfMember // by namespace
}

type paceOfMember struct {
	prompt, all *rate.Limiter
	due         map[reconcile.Request]time.Time // waiting
	forgotAt    time.Time
}

func newMemberPace(now func() time.Time) *memberPace {
	return &memberPace{now: now, members: map[string]*paceOfMember{}}
}

// place says when, and with which priority, a change of a service by a member is
// handled.
func (p *memberPace) place(namespace string, service reconcile.Request) (after time.Duration, priority int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	member := p.members[namespace]
	if member == nil {
		member = &paceOfMember{rate.NewLimiter(changeRate, promptBurst), rate.NewLimiter(changeRate, changeBurst), map[reconcile.Request]time.Time{}, now}
		p.members[namespace] = member
	}
	if now.Sub(member.forgotAt) >= dueInterval { // or a member's services of ever new names would fill the memory
		member.forgotAt = now
		maps.DeleteFunc(member.due, func(_ reconcile.Request, due time.Time) bool { return !due.After(now) })
	}
	if due, ok := member.due[service]; ok && due.After(now) {
		return due.Sub(now), afterOthers
	}
	delete(member.due, service)
	reservation := member.all.ReserveN(now, 1)
	if after = reservation.DelayFrom(now); after > maxDelay {
		reservation.CancelAt(now)
		after = maxDelay
	}
	if after > 0 {
		member.due[service] = now.Add(after)
	}
	if after > 0 || !member.prompt.AllowN(now, 1) {
		priority = afterOthers
	}
	return after, priority
}

// handler queues the services that objects of members are about. What is there at
// the start counts as no change.
func (p *memberPace) handler(requests handler.MapFunc) handler.EventHandler {
	return placed(requests, func(o client.Object, r reconcile.Request, initial bool) (time.Duration, int) {
		if initial {
			return 0, afterOthers
		}
		return p.place(o.GetNamespace(), r)
	})
}

// afterChanges queues services of which it is not known which member changed them,
// behind those of which it is.
func afterChanges(requests handler.MapFunc) handler.EventHandler {
	return placed(requests, func(client.Object, reconcile.Request, bool) (time.Duration, int) { return 0, afterOthers })
}

func placed(requests handler.MapFunc, place func(client.Object, reconcile.Request, bool) (after time.Duration, priority int)) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	add := func(ctx context.Context, o client.Object, initial bool, q queue) {
		for _, r := range requests(ctx, o) {
			after, priority := place(o, r, initial)
			if prioritized, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
				prioritized.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: ptr.To(priority)}, r)
			} else {
				q.AddAfter(r, after)
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { add(ctx, e.Object, e.IsInInitialList, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) { add(ctx, e.ObjectNew, false, q) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { add(ctx, e.Object, false, q) },
	}
}
