package program

import (
	"math"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// Workers is how many keys a controller reconciles at once where each key
	// is one service.
	Workers = 8
	// StatusWorkers is the same for controllers that write statuses only. They
	// are fewer, so that no other write waits behind statuses: hundreds of
	// services that come at once are as many statuses again.
	StatusWorkers = 2

	// A key that failed is tried again after 5 ms, then after twice as long each
	// time. 5 s at most: an API server may be away for long, and its clients
	// should go on soon after it is back.
	firstRetryDelay = 5 * time.Millisecond
	maxRetryDelay   = 5 * time.Second
)

// ControllerOptions are the options of a controller with this many workers. It
// runs on every replica, with a reconciler that Leadership.Reconciler made, so
// that a new leader works at once. It waits for its caches without end: the
// default of 2 min would end the program while the API server does not answer.
func ControllerOptions(workers int) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		NeedLeaderElection:      ptr.To(false),
		CacheSyncTimeout:        math.MaxInt64,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetryDelay, maxRetryDelay),
	}
}
