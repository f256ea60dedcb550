package endpoints

import (
	"context"
	"net/netip"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// Config is what a Loop is made from. Only Log, Clock and Reporter may be left out.
type Config struct {
	Cache     Informers
	Publisher Publisher
	// Reporter is told when an import begins or ends to overflow.
	Reporter Reporter
	Hub      Hub
	Clock    clock.WithTicker
	Log      logr.Logger
}

// Hub is the hub's own cluster, for Services of it that routes name.
type Hub struct {
	Place fleet.Place
	// CIDRs of its pods and Services: a member may announce nothing in them, and nothing outside of them is an endpoint
	// of a Service of the hub. Empty: any address that is not link-local or otherwise special.
	CIDRs []netip.Prefix
}

// Informers is the part of a controller-runtime cache that is used.
type Informers interface {
	GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

// Publisher brings load assignments to the edges of a pool. It must not block and must not call the Loop.
type Publisher interface {
	UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string)
}

// Reporter takes the condition Overflowing of BackendPolicies; it must not block.
type Reporter interface {
	Report(reports []condition.Report)
}

// Edge is one connected Envoy. Region and Pool are proven by its certificate, Node is the name that it gives itself.
type Edge struct{ Pool, Region, Node string }

func (e Edge) key() string { return e.Pool + "/" + e.Node }
