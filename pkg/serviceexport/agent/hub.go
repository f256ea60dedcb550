package agent

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
)

const (
	// hubRequestTimeout is how long one request to the hub may take.
	hubRequestTimeout = 10 * time.Second
	// accessPollInterval is the time between two checks whether the agent has
	// access to its namespace. It is shorter than an informer's retry.
	accessPollInterval = time.Second
)

// Hub is the hub as one member may read it: its cache holds the member's own
// namespace, with all slices there, and starts once the agent has access there. Until
// then the manager's controllers wait, so that nothing is pushed or deleted before the
// cache is complete.
type Hub struct {
	cluster.Cluster
	name fleet.ClusterName
}

// NewHub makes the hub's client and cache. It sends no request.
func NewHub(config *rest.Config, name fleet.ClusterName, scheme *runtime.Scheme) (*Hub, error) {
	c, err := cluster.New(config, func(o *cluster.Options) {
		o.Scheme = scheme
		o.MapperProvider = program.Mapper(scheme, []program.Kind{{Object: &v1alpha1.MemberExport{}}, {Object: &discoveryv1.EndpointSlice{}}, {Object: &coordinationv1.Lease{}}, {Object: &corev1.ConfigMap{}}})
		o.Cache.DefaultNamespaces = map[string]cache.Config{v1alpha1.MemberNamespace(name): {}}
		o.Cache.DefaultTransform = cache.TransformStripManagedFields()
		// a key that comes again before the cache has seen its write must not write twice
		o.Client.Cache = &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}
	})
	if err != nil {
		return nil, fmt.Errorf("client for the hub: %w", err)
	}
	return &Hub{Cluster: c, name: name}, nil
}

// Start waits until the agent has access to its namespace on the hub, and then
// runs the cache until ctx ends.
func (h *Hub) Start(ctx context.Context) error {
	if !h.waitForAccess(ctx) {
		return nil
	}
	return h.Cluster.Start(ctx)
}

// waitForAccess returns false if ctx ended first.
func (h *Hub) waitForAccess(ctx context.Context) bool {
	logger := log.FromContext(ctx).WithName("hub")
	var logged string
	for {
		err := h.checkAccess(ctx)
		if err == nil {
			logger.Info("this cluster has access to the hub", "cluster", h.name)
			return true
		}
		if err.Error() != logged {
			logged = err.Error()
			logger.Info("waiting for this cluster's namespace on the hub", "cluster", h.name, "answer", logged)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(accessPollInterval):
		}
	}
}

func (h *Hub) checkAccess(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubRequestTimeout)
	defer cancel()
	return h.GetAPIReader().List(ctx, &v1alpha1.MemberExportList{}, client.InNamespace(v1alpha1.MemberNamespace(h.name)), client.Limit(1))
}
