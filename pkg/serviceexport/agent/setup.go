package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/serviceexport"
)

// Indexes of the member's slices.
const (
	indexHubName  = "crossway.dev/hub-name" // by serviceexport.SliceName
	indexService  = "crossway.dev/service"  // by the name of the Service, in the slice's namespace
	indexZoneless = "crossway.dev/zoneless" // by the nodes of endpoints without a zone
)

// IndexMember adds the indexes that an Exporter needs to the member's cache.
func IndexMember(ctx context.Context, indexer client.FieldIndexer) error {
	byName := map[string]client.IndexerFunc{
		indexHubName: func(o client.Object) []string {
			if slice := o.(*discoveryv1.EndpointSlice); slice.Labels[discoveryv1.LabelServiceName] != "" {
				return []string{serviceexport.SliceName(slice)}
			}
			return nil
		},
		indexService: func(o client.Object) []string {
			if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
				return []string{name}
			}
			return nil
		},
		indexZoneless: func(o client.Object) []string { return zonelessNodes(o.(*discoveryv1.EndpointSlice)) },
	}
	for name, index := range byName {
		if err := indexer.IndexField(ctx, &discoveryv1.EndpointSlice{}, name, index); err != nil {
			return fmt.Errorf("index EndpointSlices by %s: %w", name, err)
		}
	}
	return nil
}

// zonelessNodes returns the nodes of endpoints that have no zone of their own.
func zonelessNodes(slice *discoveryv1.EndpointSlice) []string {
	var nodes []string
	for _, e := range slice.Endpoints {
		if e.Zone == nil && e.NodeName != nil {
			nodes = append(nodes, *e.NodeName)
		}
	}
	return nodes
}

// SetupWithManager adds both controllers, of exports and of slices, to the
// member's manager. The Hub must be added to it as well. They write while the
// replica leads.
func (e *Exporter) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	if err := IndexMember(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	byName := e.notesVanished(func(o client.Object) fleet.ServiceName { return fleet.ServiceName(client.ObjectKeyFromObject(o)) })
	err := ctrl.NewControllerManagedBy(mgr).Named("export").
		For(&mcsv1beta1.ServiceExport{}, builder.WithPredicates(byName)).
		Watches(&corev1.Service{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(byName)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(exportOfUnpushableSlice)).
		WatchesRawSource(source.Kind(e.hubCache, &v1alpha1.MemberExport{}, handler.TypedEnqueueRequestsFromMapFunc(exportRequests))).
		WatchesRawSource(source.Func(e.refusals.notify)).
		WatchesRawSource(source.Func(e.contact.notify)).
		WithOptions(program.ControllerOptions(program.Workers)).
		Complete(leadership.Reconciler(reconcile.Func(e.ReconcileExport)))
	if err != nil {
		return fmt.Errorf("controller of exports: %w", err)
	}
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	err = ctrl.NewControllerManagedBy(mgr).Named("slice").
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(sliceRequests), builder.WithPredicates(e.notesVanished(serviceOfSlice))).
		Watches(&mcsv1beta1.ServiceExport{}, handler.EnqueueRequestsFromMapFunc(e.slicesOfService), builder.WithPredicates(deletionChanged, byName)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(e.slicesOfService), builder.WithPredicates(offerChanged, byName)).
		WatchesMetadata(node, handler.EnqueueRequestsFromMapFunc(e.slicesOfNode), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		WatchesRawSource(source.Kind(e.hubCache, &v1alpha1.MemberExport{}, handler.TypedEnqueueRequestsFromMapFunc(e.slicesOfMemberExport), ownerCreatedOrDeleted)).
		WatchesRawSource(source.Kind(e.hubCache, &discoveryv1.EndpointSlice{}, handler.TypedEnqueueRequestsFromMapFunc(hubSliceRequests))).
		WithOptions(program.ControllerOptions(program.Workers)).
		Complete(leadership.Reconciler(reconcile.Func(e.ReconcileSlice)))
	if err != nil {
		return fmt.Errorf("controller of slices: %w", err)
	}
	return nil
}

// deletionChanged ignores updates that neither begin nor end an export.
var deletionChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	return (u.ObjectOld.GetDeletionTimestamp() == nil) != (u.ObjectNew.GetDeletionTimestamp() == nil) ||
		u.ObjectOld.GetUID() != u.ObjectNew.GetUID()
}}

// offerChanged ignores updates that change neither whether a Service can be exported
// nor what its ports are.
var offerChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*corev1.Service), u.ObjectNew.(*corev1.Service)
	return serviceexport.Exportable(before) != serviceexport.Exportable(after) || !apiequality.Semantic.DeepEqual(before.Spec.Ports, after.Spec.Ports)
}}

func serviceOfSlice(o client.Object) fleet.ServiceName {
	service, _ := serviceexport.ServiceOf(o.(*discoveryv1.EndpointSlice))
	return service
}

// ownerCreatedOrDeleted ignores updates that do not give slices another owner.
var ownerCreatedOrDeleted = predicate.TypedFuncs[*v1alpha1.MemberExport]{
	UpdateFunc: func(u event.TypedUpdateEvent[*v1alpha1.MemberExport]) bool {
		return u.ObjectOld.UID != u.ObjectNew.UID || (u.ObjectOld.DeletionTimestamp == nil) != (u.ObjectNew.DeletionTimestamp == nil)
	},
}

func exportRequests(_ context.Context, e *v1alpha1.MemberExport) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName(e.Spec.Service)}}
}

// exportOfUnpushableSlice returns the export whose conditions must name a slice
// that cannot be pushed. Other slices concern no export.
func exportOfUnpushableSlice(_ context.Context, o client.Object) []reconcile.Request {
	slice := o.(*discoveryv1.EndpointSlice)
	service, ok := serviceexport.ServiceOf(slice)
	if !ok || serviceexport.Pushable(slice) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName(service)}}
}

func sliceRequests(_ context.Context, o client.Object) []reconcile.Request {
	slice := o.(*discoveryv1.EndpointSlice)
	if _, ok := serviceexport.ServiceOf(slice); !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: serviceexport.SliceName(slice)}}}
}

func hubSliceRequests(_ context.Context, slice *discoveryv1.EndpointSlice) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: serviceexport.FirstPart(slice.Name)}}}
}

func (e *Exporter) slicesOfMemberExport(ctx context.Context, owner *v1alpha1.MemberExport) []reconcile.Request {
	return e.slicesOf(ctx, client.InNamespace(owner.Spec.Service.Namespace), client.MatchingFields{indexService: owner.Spec.Service.Name})
}

func (e *Exporter) slicesOfService(ctx context.Context, o client.Object) []reconcile.Request {
	return e.slicesOf(ctx, client.InNamespace(o.GetNamespace()), client.MatchingFields{indexService: o.GetName()})
}

func (e *Exporter) slicesOfNode(ctx context.Context, o client.Object) []reconcile.Request {
	return e.slicesOf(ctx, client.MatchingFields{indexZoneless: o.GetName()})
}

func (e *Exporter) slicesOf(ctx context.Context, which ...client.ListOption) []reconcile.Request {
	var list discoveryv1.EndpointSliceList
	if err := e.member.List(ctx, &list, append(which, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil // the cache is stopping: each slice comes again after the next start
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, sliceRequests(ctx, &list.Items[i])...)
	}
	return requests
}
