package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceimport"
)

// fleetNamespaceRetry is when a ServiceImport without a FleetService is looked at again while their namespace is not there.
const fleetNamespaceRetry = 5 * time.Second

// Projector writes one cluster's ServiceImports from the hub's FleetServices.
type Projector struct {
	*writer
	hub      client.Reader
	hubCache cache.Cache
}

// NewProjector makes a Projector that reads FleetServices from hub's cache and
// writes ServiceImports to local. Both may be the same cluster.
func NewProjector(local, hub cluster.Cluster) (*Projector, error) {
	w, err := newWriter(local)
	return &Projector{writer: w, hub: hub.GetCache(), hubCache: hub.GetCache()}, err
}

// Reconcile writes one ServiceImport without its status. The key is its name.
func (p *Projector) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	fleetService, have, err := p.both(ctx, request)
	if err != nil || p.agentImports(ctx, request.Namespace) {
		return reconcile.Result{}, err
	}
	if have != nil && !serviceimport.Ours(have) {
		if fleetService != nil {
			p.reportNotOurs(have)
		}
		return reconcile.Result{}, nil
	}
	if fleetService == nil {
		return p.remove(ctx, have)
	}
	namespace, err := apply.Found(ctx, p.local, types.NamespacedName{Name: request.Namespace}, &corev1.Namespace{})
	if err != nil || namespace == nil || namespace.DeletionTimestamp != nil {
		return reconcile.Result{}, err // the namespace's arrival brings this key back
	}
	_, err = p.write(ctx, have, serviceimport.Project(*fleetService).Import)
	return reconcile.Result{}, err
}

// ReconcileStatus writes the status of one ServiceImport that Crossway made. The
// key is its name.
func (p *Projector) ReconcileStatus(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	fleetService, have, err := p.both(ctx, request)
	if err != nil || fleetService == nil || have == nil || !serviceimport.Ours(have) || p.agentImports(ctx, request.Namespace) {
		return reconcile.Result{}, err
	}
	return p.writeStatus(ctx, have, serviceimport.Project(*fleetService))
}

// agentImports tells whether the hub's own cluster is a member that imports a
// namespace. Its agent is then the one writer of the ServiceImports there.
func (p *Projector) agentImports(ctx context.Context, namespace string) bool {
	var members v1alpha1.MemberClusterList
	if err := p.hub.List(ctx, &members, client.UnsafeDisableDeepCopy); err != nil {
		return true // the cache is stopping: whoever does not know writes nothing
	}
	return slices.ContainsFunc(members.Items, func(m v1alpha1.MemberCluster) bool {
		return m.Spec.Local && registration.MayImport(&m, namespace)
	})
}

// both reads the FleetService and the ServiceImport of one name; nil: it does
// not exist. A FleetService that is being deleted does not count.
func (p *Projector) both(ctx context.Context, request reconcile.Request) (*v1alpha1.FleetService, *mcsv1beta1.ServiceImport, error) {
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: v1alpha1.ServiceReference(request.NamespacedName).ObjectName()}
	fleetService, err := apply.Found(ctx, p.hub, key, &v1alpha1.FleetService{})
	if err != nil {
		return nil, nil, err
	}
	if fleetService != nil && fleetService.DeletionTimestamp != nil {
		fleetService = nil
	}
	have, err := apply.Found(ctx, p.local, request.NamespacedName, &mcsv1beta1.ServiceImport{})
	return fleetService, have, err
}

// remove deletes a ServiceImport of a service that no cluster exports any more. While the FleetServices' namespace is
// being deleted or made again, a missing FleetService says nothing of exports.
func (p *Projector) remove(ctx context.Context, have *mcsv1beta1.ServiceImport) (reconcile.Result, error) {
	if have == nil {
		return reconcile.Result{}, nil
	}
	namespace, err := apply.Found(ctx, p.hub, types.NamespacedName{Name: v1alpha1.FleetNamespace}, &corev1.Namespace{})
	if err != nil {
		return reconcile.Result{}, err
	}
	if namespace == nil || namespace.DeletionTimestamp != nil {
		return reconcile.Result{RequeueAfter: fleetNamespaceRetry}, nil
	}
	return reconcile.Result{}, apply.Remove(ctx, p.local, have)
}

// SetupWithManager adds both controllers, of ServiceImports and of their
// status, to the local cluster's manager. They write while the replica leads.
func (p *Projector) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := p.controller(mgr, "serviceimport", program.Workers).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(p.requestsOfNamespace), builder.WithPredicates(deletionChanged)).
		Complete(leadership.Reconciler(p))
	if err != nil {
		return fmt.Errorf("controller of ServiceImports: %w", err)
	}
	if err := p.controller(mgr, "serviceimport-status", program.StatusWorkers).Complete(leadership.Reconciler(reconcile.Func(p.ReconcileStatus))); err != nil {
		return fmt.Errorf("controller of the status of ServiceImports: %w", err)
	}
	return nil
}

func (p *Projector) controller(mgr ctrl.Manager, name string, workers int) *ctrl.Builder {
	return ctrl.NewControllerManagedBy(mgr).Named(name).
		For(&mcsv1beta1.ServiceImport{}).
		WatchesRawSource(source.Kind(p.hubCache, &v1alpha1.FleetService{}, handler.TypedEnqueueRequestsFromMapFunc(requestsOfFleetService))).
		WatchesRawSource(source.Kind(p.hubCache, &v1alpha1.MemberCluster{}, handler.TypedEnqueueRequestsFromMapFunc(p.requestsOfMember), localChanged)).
		WithOptions(program.ControllerOptions(workers))
}

func requestsOfFleetService(_ context.Context, f *v1alpha1.FleetService) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName(f.Spec.Service)}}
}

// localChanged lets through what may change who writes in the hub's own cluster.
var localChanged = predicate.TypedFuncs[*v1alpha1.MemberCluster]{
	CreateFunc: func(e event.TypedCreateEvent[*v1alpha1.MemberCluster]) bool { return e.Object.Spec.Local },
	UpdateFunc: func(u event.TypedUpdateEvent[*v1alpha1.MemberCluster]) bool {
		return u.ObjectOld.Generation != u.ObjectNew.Generation && (u.ObjectOld.Spec.Local || u.ObjectNew.Spec.Local)
	},
	DeleteFunc: func(e event.TypedDeleteEvent[*v1alpha1.MemberCluster]) bool { return e.Object.Spec.Local },
}

func (p *Projector) requestsOfMember(ctx context.Context, _ *v1alpha1.MemberCluster) []reconcile.Request {
	return p.requestsIf(ctx, func(v1alpha1.ServiceReference) bool { return true })
}

func (p *Projector) requestsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return p.requestsIf(ctx, func(s v1alpha1.ServiceReference) bool { return s.Namespace == namespace.GetName() })
}

func (p *Projector) requestsIf(ctx context.Context, is func(v1alpha1.ServiceReference) bool) []reconcile.Request {
	var list v1alpha1.FleetServiceList
	if err := p.hub.List(ctx, &list, client.InNamespace(v1alpha1.FleetNamespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping: each key comes again after the next start
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if is(list.Items[i].Spec.Service) {
			requests = append(requests, requestsOfFleetService(ctx, &list.Items[i])...)
		}
	}
	return requests
}
