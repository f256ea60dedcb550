package endpoints

import (
	"context"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/replica"
)

// What cmd/hub hands to the Loop.
type (
	Hub          = state.Hub
	Edge         = state.Edge
	Load         = state.Load
	LocalityLoad = state.LocalityLoad
)

// Config is what a Loop is made from. Log, Clock, Reporter, Events and Leads are optional.
type Config struct {
	Cache     Informers
	Publisher Publisher
	// Reporter gets the condition Overflowing of BackendPolicies.
	Reporter Reporter
	// Events get an Event on a MemberCluster that is held out, or no longer is, and on a Service of the hub's cluster
	// that has addresses which are not the hub's. They are emitted where Leads says that this replica leads; nil: on every replica.
	Events events.EventRecorder
	Leads  func() bool
	// Load and Shares are what replicas of the hub tell each other: the reports of their edges, and the shares in force.
	// PeersHeard is closed once each other replica was heard, or is not there. All nil: there is no other replica.
	Load, Shares replica.Topic
	PeersHeard   <-chan struct{}
	Hub          Hub
	Clock        clock.WithTicker
	Log          logr.Logger
}

// Informers is the part of a controller-runtime cache that is used.
type Informers interface {
	GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

// Publisher brings load assignments to the edges of a pool. It must not block and must not call the Loop.
type Publisher interface {
	UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string)
}

// Reporter takes conditions of BackendPolicies; it must not block.
type Reporter interface {
	Report(reports []condition.Report)
}
