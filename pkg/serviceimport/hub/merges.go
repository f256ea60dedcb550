package hub

import (
	"context"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

const (
	// recordsDelay is how long the first merge waits for FleetServices. Where their CRD
	// was deleted they never come, and routes are served all the same.
	recordsDelay    = 3 * time.Second
	recordsInterval = 10 * time.Millisecond
	forgetInterval  = time.Minute
)

// Merges are the merges of all services of one replica, and what it remembers of
// them. Whoever merges on a replica does it with the same Merges, so that edges, members
// and FleetServices have the same. Replicas agree by what the leader records in the
// status of MemberExports. Any goroutine may use it.
type Merges struct {
	cache cache.Cache
	now   func() time.Time

	mu       sync.Mutex
	records  cache.Informer // of FleetServices; nil: not asked for yet
	services map[fleet.ServiceName]*remembered
	forgotAt time.Time
}

// remembered is what is remembered of one service.
type remembered struct {
	history serviceimport.History
	seen    map[fleet.ClusterName]v1alpha1.SeenExport
}

// NewMerges makes the Merges of a replica, whose cache has MemberExports and
// FleetServices.
func NewMerges(c cache.Cache) *Merges {
	return &Merges{cache: c, now: time.Now, services: map[fleet.ServiceName]*remembered{}}
}

// Do calls f, which reads exports and merges them. Nobody else merges meanwhile, so no
// merge is of older exports than the one before it. f does not wait for anything.
func (m *Merges) Do(ctx context.Context, f func(merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		if err := m.awaitRecords(ctx); err != nil {
			return err
		}
	}
	if now := m.now(); now.Sub(m.forgotAt) >= forgetInterval {
		m.forgotAt = now
		for name, service := range m.services {
			if service.history.Idle(now) {
				delete(m.services, name)
			}
		}
	}
	return f(func(service fleet.ServiceName, exports []serviceimport.Export) serviceimport.Merged {
		return m.merge(ctx, service, exports)
	})
}

// awaitRecords waits for FleetServices, for a while.
func (m *Merges) awaitRecords(ctx context.Context) error {
	informer, err := m.cache.GetInformer(ctx, &v1alpha1.FleetService{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	m.records = informer
	_ = wait.PollUntilContextTimeout(ctx, recordsInterval, recordsDelay, true, func(context.Context) (bool, error) {
		return informer.HasSynced(), nil
	}) // then without
	return nil
}

func (m *Merges) merge(ctx context.Context, name fleet.ServiceName, exports []serviceimport.Export) serviceimport.Merged {
	service := m.services[name]
	var recorded *v1alpha1.FleetServiceSpec
	if service == nil {
		if len(exports) == 0 {
			return serviceimport.Merged{}
		}
		service = &remembered{}
		m.services[name] = service
		recorded = m.recorded(ctx, name)
	}
	merged := service.history.Merge(exports, recorded, m.now())
	service.seen = merged.Seen
	return merged
}

// recorded returns what is in a service's FleetService; nil: there is none, or
// FleetServices cannot be read.
func (m *Merges) recorded(ctx context.Context, service fleet.ServiceName) *v1alpha1.FleetServiceSpec {
	if !m.records.HasSynced() {
		return nil
	}
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: v1alpha1.ServiceReference(service).ObjectName()}
	have, err := apply.Found(ctx, m.cache, key, &v1alpha1.FleetService{})
	if err != nil || have == nil {
		return nil
	}
	return &have.Spec
}

// Confirms tells whether the record of an export says what its last merge did. A record
// that does not was written by a replica that saw other changes, or by hand.
func (m *Merges) Confirms(e *v1alpha1.MemberExport) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	cluster, _ := v1alpha1.MemberOfNamespace(e.Namespace)
	service := m.services[fleet.ServiceName(e.Spec.Service)]
	if service == nil || e.Status.Seen == nil {
		return false
	}
	seen, ok := service.seen[fleet.ClusterName(cluster)]
	return ok && apiequality.Semantic.DeepEqual(seen, *e.Status.Seen)
}
