package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

// fieldManager owns what is applied to a ServiceImport.
const fieldManager = "crossway-imports"

const (
	workers               = 8
	statusWorkers         = 2 // no import waits behind the statuses of others
	firstRetry, lastRetry = 5 * time.Millisecond, 5 * time.Second
)

// Projector makes one cluster's ServiceImports of the fleet's FleetServices.
type Projector struct {
	// read-only after NewProjector
	hub      client.Reader
	hubCache cache.Cache
	local    client.Client
	events   events.EventRecorder
	now      func() time.Time

	// by any goroutine: UIDs of the ServiceImports of others that were told
	told sync.Map
	rush apply.Rush
}

// NewProjector makes a Projector of the cluster local, of what hub's cache
// says. Both may be the same cluster.
func NewProjector(local, hub cluster.Cluster) (*Projector, error) {
	waiting, err := apply.ClientOf(local)
	if err != nil {
		return nil, err
	}
	return &Projector{
		hub: hub.GetCache(), hubCache: hub.GetCache(), local: waiting,
		events: local.GetEventRecorder("crossway-imports"), now: time.Now,
	}, nil
}

// Reconcile makes one ServiceImport what the fleet says, but its status. The
// key is its name.
func (p *Projector) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	fleetService, have, err := p.both(ctx, request)
	if err != nil {
		return reconcile.Result{}, err
	}
	if have != nil && !serviceimport.Ours(have) {
		p.tell(have, fleetService)
		return reconcile.Result{}, nil
	}
	if fleetService == nil {
		return reconcile.Result{}, p.remove(ctx, have)
	}
	namespace, err := apply.Found(ctx, p.local, types.NamespacedName{Name: request.Namespace}, &corev1.Namespace{})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("read Namespace %s: %w", request.Namespace, err)
	}
	if namespace == nil || namespace.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // its arrival brings this key back
	}
	want := serviceimport.Project(*fleetService).Import
	if have != nil && sameImport(have, &want) {
		return reconcile.Result{}, nil
	}
	if err := apply.Object(ctx, p.local, fieldManager, &want); err != nil {
		return reconcile.Result{}, fmt.Errorf("apply ServiceImport %s: %w", request.NamespacedName, err)
	}
	p.rush.Wrote(p.now())
	return reconcile.Result{}, nil
}

// ReconcileStatus makes the status of one ServiceImport of ours what the fleet
// says. The key is its name.
func (p *Projector) ReconcileStatus(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if wait := p.rush.Wait(p.now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	fleetService, have, err := p.both(ctx, request)
	if err != nil || fleetService == nil || have == nil || !serviceimport.Ours(have) {
		return reconcile.Result{}, err
	}
	want := serviceimport.Project(*fleetService)
	if !apiequality.Semantic.DeepEqual(have.Spec, want.Import.Spec) { // labels may be somebody else's, too
		return reconcile.Result{}, nil // its change brings this key back
	}
	status := &want.Import
	status.Status.Conditions = condition.Stamped(have.Status.Conditions, want.Conditions, have.Generation, p.now())
	if sameStatus(have.Status, status.Status) {
		return reconcile.Result{}, nil
	}
	if err := apply.Status(ctx, p.local, fieldManager, status); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("write status of ServiceImport %s: %w", request.NamespacedName, err)
	}
	return reconcile.Result{}, nil
}

// both are the import as the fleet has it and as the cluster shows it; nil
// where there is none.
func (p *Projector) both(ctx context.Context, request reconcile.Request) (*v1alpha1.FleetService, *mcsv1beta1.ServiceImport, error) {
	fleetService, err := p.fleetService(ctx, request.NamespacedName)
	if err != nil {
		return nil, nil, err
	}
	have, err := apply.Found(ctx, p.local, request.NamespacedName, &mcsv1beta1.ServiceImport{})
	if err != nil {
		return nil, nil, fmt.Errorf("read ServiceImport %s: %w", request.NamespacedName, err)
	}
	return fleetService, have, nil
}

func (p *Projector) fleetService(ctx context.Context, service types.NamespacedName) (*v1alpha1.FleetService, error) {
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: serviceimport.Name(fleet.ServiceName{Namespace: service.Namespace, Name: service.Name})}
	fleetService, err := apply.Found(ctx, p.hub, key, &v1alpha1.FleetService{})
	if err != nil {
		return nil, fmt.Errorf("read FleetService %s: %w", key, err)
	}
	if fleetService != nil && fleetService.DeletionTimestamp != nil {
		return nil, nil
	}
	return fleetService, nil
}

// remove deletes a ServiceImport of ours that no cluster exports any more.
func (p *Projector) remove(ctx context.Context, have *mcsv1beta1.ServiceImport) error {
	if have == nil {
		return nil
	}
	if err := apply.Remove(ctx, p.local, have); err != nil {
		return fmt.Errorf("delete ServiceImport %s/%s: %w", have.Namespace, have.Name, err)
	}
	return nil
}

// tell says once of each ServiceImport of somebody else that it is in the way.
func (p *Projector) tell(have *mcsv1beta1.ServiceImport, fleetService *v1alpha1.FleetService) {
	if fleetService == nil {
		return
	}
	if _, before := p.told.LoadOrStore(have.UID, nil); before {
		return
	}
	service := fleet.ServiceName{Namespace: have.Namespace, Name: have.Name}
	p.events.Eventf(have, nil, corev1.EventTypeWarning, "NotCrossways", "Import", "%s", condition.ImportNotOurs(service))
}

func sameImport(have, want *mcsv1beta1.ServiceImport) bool {
	return apiequality.Semantic.DeepEqual(have.Spec, want.Spec) &&
		apiequality.Semantic.DeepEqual(have.Labels, want.Labels) &&
		apiequality.Semantic.DeepEqual(have.Annotations, want.Annotations)
}

// sameStatus looks at what Crossway writes there.
func sameStatus(have, want mcsv1beta1.ServiceImportStatus) bool {
	mine := slices.DeleteFunc(slices.Clone(have.Conditions), func(c metav1.Condition) bool {
		return !slices.ContainsFunc(want.Conditions, func(w metav1.Condition) bool { return w.Type == c.Type })
	})
	clusters := slices.SortedFunc(slices.Values(have.Clusters), func(a, b mcsv1beta1.ClusterStatus) int { return strings.Compare(a.Cluster, b.Cluster) })
	return have.EndpointSliceObjects == want.EndpointSliceObjects &&
		apiequality.Semantic.DeepEqual(mine, want.Conditions) &&
		apiequality.Semantic.DeepEqual(clusters, want.Clusters)
}

// SetupWithManager adds both controllers, of ServiceImports and of their
// status, to the local cluster's manager.
func (p *Projector) SetupWithManager(mgr ctrl.Manager) error {
	err := p.controller(mgr, "serviceimport", workers).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(p.importsOfNamespace), builder.WithPredicates(cameOrWent)).
		Complete(p)
	if err != nil {
		return fmt.Errorf("controller of ServiceImports: %w", err)
	}
	if err := p.controller(mgr, "serviceimport-status", statusWorkers).Complete(reconcile.Func(p.ReconcileStatus)); err != nil {
		return fmt.Errorf("controller of the status of ServiceImports: %w", err)
	}
	return nil
}

func (p *Projector) controller(mgr ctrl.Manager, name string, workers int) *ctrl.Builder {
	warm := true
	return ctrl.NewControllerManagedBy(mgr).Named(name).
		For(&mcsv1beta1.ServiceImport{}).
		WatchesRawSource(source.Kind(p.hubCache, &v1alpha1.FleetService{}, handler.TypedEnqueueRequestsFromMapFunc(importOf))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			EnableWarmup:            &warm,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		})
}

// cameOrWent leaves out changes of a namespace's labels and such.
var cameOrWent = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	return (u.ObjectOld.GetDeletionTimestamp() == nil) != (u.ObjectNew.GetDeletionTimestamp() == nil)
}}

func importOf(_ context.Context, i *v1alpha1.FleetService) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: i.Spec.Service.Namespace, Name: i.Spec.Service.Name}}}
}

func (p *Projector) importsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	var list v1alpha1.FleetServiceList
	if err := p.hub.List(ctx, &list, client.InNamespace(v1alpha1.FleetNamespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping: each import comes again with the next start
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.Service.Namespace == namespace.GetName() {
			requests = append(requests, importOf(ctx, &list.Items[i])...)
		}
	}
	return requests
}
