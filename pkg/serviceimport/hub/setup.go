package hub

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Indexes by "namespace/name" of the service.
const (
	indexExport = "crossway.dev/export-of"
	indexSlice  = "crossway.dev/endpoints-of"
)

// Index adds the indexes that a Merger needs to the hub's cache.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &v1alpha1.MemberExport{}, indexExport, func(o client.Object) []string {
		return []string{serviceOfExport(o.(*v1alpha1.MemberExport)).String()}
	}); err != nil {
		return fmt.Errorf("index MemberExports by service: %w", err)
	}
	if err := indexer.IndexField(ctx, &discoveryv1.EndpointSlice{}, indexSlice, func(o client.Object) []string {
		if service, ok := serviceOfSlice(o); ok {
			return []string{service.String()}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("index EndpointSlices by service: %w", err)
	}
	return nil
}

// SetupWithManager adds both controllers, of FleetServices and of the status of
// MemberExports, to the hub's manager. They write while the replica leads.
func (m *Merger) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	if err := Index(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	err := m.controller(mgr, "import", program.Workers).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(m.fleetNamespaceChanged), builder.WithPredicates(fleetNamespace)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(m.everyService), builder.WithPredicates(ownerChanged)).
		Complete(leadership.Reconciler(m))
	if err != nil {
		return fmt.Errorf("controller of imports: %w", err)
	}
	status := newMemberPace(m.now)
	err = m.controller(mgr, "export-status", program.StatusWorkers).
		Watches(&v1alpha1.MemberExport{}, afterChanges(requestsOfExport), builder.WithPredicates(statusChanged)).
		Watches(&v1alpha1.MemberCluster{}, afterChanges(m.requestsOfMember), builder.WithPredicates(silenceChanged)).
		Watches(&discoveryv1.EndpointSlice{}, status.handler(m.leftOuts.requestsOfSlice)).
		Complete(leadership.Reconciler(reconcile.Func(m.ReconcileStatus)))
	if err != nil {
		return fmt.Errorf("controller of the status of exports: %w", err)
	}
	return nil
}

func (m *Merger) controller(mgr ctrl.Manager, name string, workers int) *ctrl.Builder {
	return ctrl.NewControllerManagedBy(mgr).Named(name).
		Watches(&v1alpha1.MemberExport{}, newMemberPace(m.now).handler(requestsOfExport), builder.WithPredicates(specChanged)).
		Watches(&v1alpha1.FleetService{}, afterChanges(requestsOfFleetService)).
		Watches(&v1alpha1.MemberCluster{}, handler.EnqueueRequestsFromMapFunc(m.everyService), builder.WithPredicates(membershipChanged)).
		WithOptions(program.ControllerOptions(workers))
}

// specChanged ignores updates that only change the status of an export, or what a
// merge does not read.
var specChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld, u.ObjectNew
	return before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID() ||
		(before.GetDeletionTimestamp() == nil) != (after.GetDeletionTimestamp() == nil)
}}

// statusChanged lets through where somebody wrote a status, which no member may.
var statusChanged = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(u event.UpdateEvent) bool {
		return !apiequality.Semantic.DeepEqual(u.ObjectOld.(*v1alpha1.MemberExport).Status, u.ObjectNew.(*v1alpha1.MemberExport).Status)
	},
	DeleteFunc: func(event.DeleteEvent) bool { return false },
}

// membershipChanged ignores updates that change neither a merge nor an admission:
// most updates of a MemberCluster are numbers and times in its status.
var membershipChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*v1alpha1.MemberCluster), u.ObjectNew.(*v1alpha1.MemberCluster)
	return before.Generation != after.Generation || before.UID != after.UID ||
		registration.Accepted(before) != registration.Accepted(after) ||
		!registration.AcceptedAt(before).Equal(registration.AcceptedAt(after))
}}

// silenceChanged lets through where the silence of a member begins or ends.
var silenceChanged = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(u event.UpdateEvent) bool {
		return registration.SilenceChanged(u.ObjectOld.(*v1alpha1.MemberCluster), u.ObjectNew.(*v1alpha1.MemberCluster))
	},
	DeleteFunc: func(event.DeleteEvent) bool { return false },
}

// requestsOfMember are the services that a member exports.
func (m *Merger) requestsOfMember(ctx context.Context, o client.Object) (requests []reconcile.Request) {
	var list v1alpha1.MemberExportList
	if err := m.client.List(ctx, &list, client.InNamespace(v1alpha1.MemberNamespace(o.GetName())), client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping: all come again with the next start
	}
	for i := range list.Items {
		requests = append(requests, requestsOfExport(ctx, &list.Items[i])...)
	}
	return requests
}

// fleetNamespace lets through when crossway-fleet appears and when its deletion begins.
var fleetNamespace = predicate.And(
	predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == v1alpha1.FleetNamespace }),
	predicate.Funcs{
		UpdateFunc: func(u event.UpdateEvent) bool {
			return (u.ObjectOld.GetDeletionTimestamp() == nil) != (u.ObjectNew.GetDeletionTimestamp() == nil)
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	})

// ownerChanged lets through when a namespace becomes a member's, or ceases to be one.
var ownerChanged = predicate.Funcs{
	CreateFunc: func(c event.CreateEvent) bool { return isOwned(c.Object) },
	UpdateFunc: func(u event.UpdateEvent) bool { return isOwned(u.ObjectOld) != isOwned(u.ObjectNew) },
	DeleteFunc: func(event.DeleteEvent) bool { return false }, // its exports were deleted before
}

func isOwned(namespace client.Object) bool {
	_, ok := registration.Owner(namespace.(*corev1.Namespace))
	return ok
}

// fleetNamespaceChanged has all FleetServices written again once their namespace is there: a namespace that is being
// deleted takes none.
func (m *Merger) fleetNamespaceChanged(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetDeletionTimestamp() == nil {
		return m.everyService(ctx, o)
	}
	log.FromContext(ctx).Info("a namespace is being deleted that Crossway makes again; until then new members import nothing, and all else is "+
		"served as before. If this takes long, the namespace's status says what holds it", "namespace", o.GetName())
	return nil
}

func serviceOfExport(e *v1alpha1.MemberExport) fleet.ServiceName {
	return fleet.ServiceName(e.Spec.Service)
}

func serviceOfSlice(o client.Object) (fleet.ServiceName, bool) {
	labels := o.GetLabels()
	service := fleet.ServiceName{Namespace: labels[v1alpha1.LabelServiceNamespace], Name: labels[v1alpha1.LabelServiceName]}
	return service, service.Namespace != "" && service.Name != ""
}

func requestFor(service fleet.ServiceName) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName(service)}
}

func requestsOfExport(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{requestFor(serviceOfExport(o.(*v1alpha1.MemberExport)))}
}

func requestsOfFleetService(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{requestFor(fleet.ServiceName(o.(*v1alpha1.FleetService).Spec.Service))}
}

func requestsOfSlice(_ context.Context, o client.Object) []reconcile.Request {
	if service, ok := serviceOfSlice(o); ok {
		return []reconcile.Request{requestFor(service)}
	}
	return nil
}

// everyService returns the keys of all exported services: a change of the fleet's
// members concerns them all.
func (m *Merger) everyService(ctx context.Context, _ client.Object) []reconcile.Request {
	var list v1alpha1.MemberExportList
	if err := m.client.List(ctx, &list, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping: each service comes again after the next start
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, requestFor(serviceOfExport(&list.Items[i])))
	}
	slices.SortFunc(requests, func(a, b reconcile.Request) int {
		return fleet.ServiceName(a.NamespacedName).Compare(fleet.ServiceName(b.NamespacedName))
	})
	return slices.Compact(requests)
}
