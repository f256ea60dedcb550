package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// rest is between two rounds of writes to EdgePools: edges that come and go
// must not cost a write each.
const rest = 200 * time.Millisecond

// longestRest is between two tries to write what cannot be written.
const longestRest = 30 * time.Second

// Keeper writes the status of EdgePools: the addresses given to Gateways and
// the edges connected. It is a Runnable that only the leader runs, and the one
// writer of that status.
type Keeper struct {
	// Client writes, and reads from a cache where it has one.
	Client client.Client
	// Live reads past the cache after a conflict. Nil: Client.
	Live client.Reader
	// Clock gives times. Nil: the real one.
	Clock clock.Clock

	kick chan struct{}

	mu     sync.Mutex // guards wanted
	wanted map[string]poolStatus
}

// poolStatus is what an EdgePool's status is to say.
type poolStatus struct {
	// given are the allocations that allocations were computed from: where
	// others are stored by now, another computation is on its way.
	given, allocations []v1alpha1.AddressAllocation
	edges              int
	// region and decides are set where another pool's spec.nearest counts for
	// the region instead of this one's.
	region, decides string
}

// NewKeeper makes a Keeper.
func NewKeeper(c client.Client, live client.Reader, clk clock.Clock) *Keeper {
	if live == nil {
		live = c
	}
	if clk == nil {
		clk = clock.RealClock{}
	}
	return &Keeper{Client: c, Live: live, Clock: clk, kick: make(chan struct{}, 1), wanted: map[string]poolStatus{}}
}

// NeedLeaderElection says that only the leader writes.
func (k *Keeper) NeedLeaderElection() bool { return true }

// want replaces what is wanted, by EdgePool. It does not block.
func (k *Keeper) want(wanted map[string]poolStatus) {
	k.mu.Lock()
	same := reflect.DeepEqual(k.wanted, wanted)
	k.wanted = wanted
	k.mu.Unlock()
	if !same {
		k.wake()
	}
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Start writes what is and becomes wanted until ctx ends.
func (k *Keeper) Start(ctx context.Context) error {
	k.wake()
	pause := rest
	var again <-chan time.Time // while something could not be written
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-again:
		}
		again = nil
		if err := k.writeAll(ctx); err == nil {
			pause = rest
		} else if ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "write EdgePools")
			pause = min(2*pause, longestRest)
			again = k.Clock.After(pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.Clock.After(rest):
		}
	}
}

// writeAll brings every EdgePool to what is wanted, by name. One that cannot be
// written does not hold up the others.
func (k *Keeper) writeAll(ctx context.Context) error {
	k.mu.Lock()
	wanted := k.wanted
	k.mu.Unlock()
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		faults = append(faults, k.write(ctx, name, wanted[name]))
	}
	return errors.Join(faults...)
}

func (k *Keeper) write(ctx context.Context, name string, wanted poolStatus) error {
	var reader client.Reader = k.Client
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pool := &v1alpha1.EdgePool{}
		if err := reader.Get(ctx, client.ObjectKey{Name: name}, pool); err != nil {
			return client.IgnoreNotFound(err)
		}
		before := pool.Status.DeepCopy()
		if equality.Semantic.DeepEqual(pool.Status.Allocations, wanted.given) {
			pool.Status.Allocations = wanted.allocations
		}
		pool.Status.Edges = int32(wanted.edges)
		verdict := condition.EdgePoolReady()
		if wanted.edges == 0 {
			verdict = condition.EdgePoolNoEdges(name)
		}
		if wanted.decides != "" {
			verdict = condition.EdgePoolNearestIgnored(verdict, wanted.region, wanted.decides)
		}
		pool.Status.Conditions = condition.Stamped(pool.Status.Conditions, []condition.Condition{verdict}, pool.Generation, k.Clock.Now())
		if equality.Semantic.DeepEqual(before, &pool.Status) {
			return nil
		}
		reader = k.Live
		err := k.Client.Status().Update(ctx, pool)
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
