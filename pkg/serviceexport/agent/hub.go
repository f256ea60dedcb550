package agent

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

const (
	// hubPatience is how long one request to the hub may take.
	hubPatience = 10 * time.Second
	// admissionPoll is how often an agent asks whether it has been let in.
	admissionPoll = time.Second
	// leaseRenewal and leaseSeconds: see registration.LeaseRenewal and LeaseDuration.
	leaseRenewal = 10 * time.Second
	leaseSeconds = 40
)

// Hub is the hub as one member may see it: its cache holds the member's own
// namespace, and starts once the hub lets the member in. Until then the
// manager's controllers wait, so that nothing is pushed or deleted on a view
// that is not complete.
type Hub struct {
	cluster.Cluster
	name fleet.ClusterName
}

// NewHub makes the hub's client and cache; it does not talk to the hub yet.
func NewHub(config *rest.Config, name fleet.ClusterName, scheme *runtime.Scheme) (*Hub, error) {
	ours := labels.SelectorFromSet(labels.Set{discoveryv1.LabelManagedBy: v1alpha1.ManagedBySlices})
	wait := true
	c, err := cluster.New(config, func(o *cluster.Options) {
		o.Scheme = scheme
		o.Cache.DefaultNamespaces = map[string]cache.Config{serviceexport.Namespace(name): {}}
		o.Cache.ByObject = map[client.Object]cache.ByObject{&discoveryv1.EndpointSlice{}: {Label: ours}}
		o.Cache.DefaultTransform = cache.TransformStripManagedFields()
		// a key that comes again before the cache saw its write must not write twice
		o.Client.Cache = &client.CacheOptions{EnableReadYourWritesConsistency: &wait}
	})
	if err != nil {
		return nil, fmt.Errorf("client for the hub: %w", err)
	}
	return &Hub{Cluster: c, name: name}, nil
}

// Start waits until the hub lets the member in and then runs the cache until
// ctx ends.
func (h *Hub) Start(ctx context.Context) error {
	if !h.await(ctx) {
		return nil
	}
	return h.Cluster.Start(ctx)
}

// await asks each second, which is sooner than an informer would ask again. It
// is false where ctx ended first.
func (h *Hub) await(ctx context.Context) bool {
	logger := log.FromContext(ctx).WithName("hub")
	var told string
	for {
		err := h.knock(ctx)
		if err == nil {
			logger.Info("the hub lets this cluster in", "cluster", h.name)
			return true
		}
		if err.Error() != told {
			told = err.Error()
			logger.Info("waiting for the hub: is it reachable, and is the MemberCluster accepted?", "cluster", h.name, "answer", told)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(admissionPoll):
		}
	}
}

func (h *Hub) knock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	return h.GetAPIReader().List(ctx, &v1alpha1.MemberExportList{}, client.InNamespace(serviceexport.Namespace(h.name)), client.Limit(1))
}

// Heartbeat renews the member's Lease on the hub, by one request each 10 s.
type Heartbeat struct {
	Cluster  fleet.ClusterName
	Hub      client.Client
	Identity string // who holds it: the agent's pod
	Now      func() time.Time
}

// Start renews until ctx ends. A renewal that fails is tried again at the next turn.
func (h *Heartbeat) Start(ctx context.Context) error {
	ticker := time.NewTicker(leaseRenewal)
	defer ticker.Stop()
	logger := log.FromContext(ctx).WithName("heartbeat")
	for {
		if err := h.Renew(ctx); err != nil && ctx.Err() == nil {
			logger.Error(err, "the hub counts this cluster as silent after 40 s without a renewal")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Renew writes the Lease once.
func (h *Heartbeat) Renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	now, seconds := metav1.NewMicroTime(h.Now()), int32(leaseSeconds)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: serviceexport.Namespace(h.Cluster), Name: v1alpha1.AgentLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &h.Identity, RenewTime: &now, LeaseDurationSeconds: &seconds},
	}
	// nothing reads Leases here, so there is no cache that could see the write
	if err := apply.Object(ctx, h.Hub, v1alpha1.AgentFieldManager, lease, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("renew lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	return nil
}
