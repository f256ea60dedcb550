package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/condition"
)

const (
	// minWriteInterval is between two rounds of writes to EdgePools: edges that
	// come and go must not cost a write each.
	minWriteInterval = 200 * time.Millisecond
	// maxWriteRetryDelay bounds the time between two tries of a failed write.
	maxWriteRetryDelay = 30 * time.Second
)

// PoolStatusWriter writes the status of EdgePools: the addresses allocated to
// Gateways and the number of connected edges. It is a Runnable that only the
// leader runs, and the only writer of that status.
type PoolStatusWriter struct {
	// Client writes, and reads from a cache where it has one.
	Client client.Client
	// Live reads past the cache after a conflict. Nil: Client.
	Live client.Reader
	// Clock gives times. Nil: the real one.
	Clock clock.Clock

	last  map[string]poolStatus // of the caller of SetDesired
	inbox *batch.Inbox[map[string]poolStatus]
}

// poolStatus is what an EdgePool's status should say.
type poolStatus struct {
	// given are the allocations that allocations were computed from. If others
	// are stored by now, another computation will follow.
	given, allocations []v1alpha1.AddressAllocation
	edges              int
	// region and decides are set if another pool's spec.nearest counts for the
	// region instead of this one's.
	region, decides string
}

// NewPoolStatusWriter makes a PoolStatusWriter.
func NewPoolStatusWriter(c client.Client, live client.Reader, clk clock.Clock) *PoolStatusWriter {
	if live == nil {
		live = c
	}
	if clk == nil {
		clk = clock.RealClock{}
	}
	return &PoolStatusWriter{Client: c, Live: live, Clock: clk, inbox: batch.NewInbox(func() map[string]poolStatus { return nil })}
}

// NeedLeaderElection says that only the leader writes.
func (w *PoolStatusWriter) NeedLeaderElection() bool { return true }

// SetDesired replaces what the statuses should say, by EdgePool. It does not
// block. One goroutine may call it.
func (w *PoolStatusWriter) SetDesired(desired map[string]poolStatus) {
	if !reflect.DeepEqual(w.last, desired) {
		w.last = desired
		w.inbox.Add(func(p *map[string]poolStatus) { *p = desired })
	}
}

// Start writes until ctx ends.
func (w *PoolStatusWriter) Start(ctx context.Context) error {
	var desired map[string]poolStatus
	retryDelay := minWriteInterval
	var retries <-chan time.Time // while something could not be written
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.inbox.Wake():
			if next := w.inbox.Drain(); next != nil {
				desired = next
			}
		case <-retries:
		}
		retries = nil
		if err := w.writeAll(ctx, desired); err == nil {
			retryDelay = minWriteInterval
		} else if ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "could not write the status of EdgePools")
			retryDelay = min(2*retryDelay, maxWriteRetryDelay)
			retries = w.Clock.After(retryDelay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.Clock.After(minWriteInterval):
		}
	}
}

// writeAll brings every EdgePool to what it should say, by name. A pool that
// cannot be written does not hold up the others.
func (w *PoolStatusWriter) writeAll(ctx context.Context, desired map[string]poolStatus) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(desired)) {
		errs = append(errs, w.write(ctx, name, desired[name]))
	}
	return errors.Join(errs...)
}

func (w *PoolStatusWriter) write(ctx context.Context, name string, desired poolStatus) error {
	var reader client.Reader = w.Client
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pool := &v1alpha1.EdgePool{}
		if err := reader.Get(ctx, client.ObjectKey{Name: name}, pool); err != nil {
			return client.IgnoreNotFound(err)
		}
		before := pool.Status.DeepCopy()
		if equality.Semantic.DeepEqual(pool.Status.Allocations, desired.given) {
			pool.Status.Allocations = desired.allocations
		}
		pool.Status.Edges = int32(desired.edges)
		ready := condition.EdgePoolReady()
		if desired.edges == 0 {
			ready = condition.EdgePoolNoEdges(name)
		}
		if desired.decides != "" {
			ready = condition.EdgePoolNearestIgnored(ready, desired.region, desired.decides)
		}
		pool.Status.Conditions = condition.Stamped(pool.Status.Conditions, []condition.Condition{ready}, pool.Generation, w.Clock.Now())
		if equality.Semantic.DeepEqual(before, &pool.Status) {
			return nil
		}
		reader = w.Live
		err := w.Client.Status().Update(ctx, pool)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write status of EdgePool %s: %w", name, err)
	}
	return nil
}
