package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
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
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/serviceimport"
)

// Indexes of the member's slices.
const (
	indexImported = "crossway.dev/imported" // imported slices, by the name of the service
	indexExported = "crossway.dev/exported" // slices of the member's Services, by the name of the Service
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// IndexMember adds the indexes that an Importer needs to the member's cache.
func IndexMember(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &discoveryv1.EndpointSlice{}, indexImported, func(o client.Object) []string {
		if serviceimport.OurSlice(o.(*discoveryv1.EndpointSlice)) {
			return []string{o.GetLabels()[mcsv1beta1.LabelServiceName]}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index imported EndpointSlices: %w", err)
	}
	err = indexer.IndexField(ctx, &discoveryv1.EndpointSlice{}, indexExported, func(o client.Object) []string {
		if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" && !serviceimport.OurSlice(o.(*discoveryv1.EndpointSlice)) {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index EndpointSlices by Service: %w", err)
	}
	return nil
}

// SetupWithManager adds both controllers, of imports and of their status, to the
// member's manager. The MemberAPI must be added to it as well. They write while
// the replica leads. They do not wait for the hub.
func (i *Importer) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	if err := IndexMember(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	err := ctrl.NewControllerManagedBy(mgr).Named("import").
		For(&mcsv1beta1.ServiceImport{}).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(i.requestsOfService)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(i.requestsOfSlice)).
		Watches(&mcsv1beta1.ServiceExport{}, handler.EnqueueRequestsFromMapFunc(i.requestsOfExport), builder.WithPredicates(deletionChanged)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(i.requestsOfNamespace), builder.WithPredicates(deletionChanged)).
		WatchesMetadata(node, handler.EnqueueRequestsFromMapFunc(i.requestsOfNode), builder.WithPredicates(zoneChanged)).
		WatchesRawSource(source.Func(i.watchHub)).
		WithOptions(program.ControllerOptions(program.Workers)).
		Complete(leadership.Reconciler(i))
	if err != nil {
		return fmt.Errorf("controller of imports: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("import-status").
		For(&mcsv1beta1.ServiceImport{}).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(requestsOfImportedSlice), builder.WithPredicates(deletionChanged)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(i.requestsOfService), builder.WithPredicates(derived)).
		WatchesRawSource(source.Func(i.watchHubImports)).
		WithOptions(program.ControllerOptions(program.StatusWorkers)).
		Complete(leadership.Reconciler(reconcile.Func(i.ReconcileStatus)))
	if err != nil {
		return fmt.Errorf("controller of the status of imports: %w", err)
	}
	return nil
}

// watchHub adds the services of all objects that the hub serves or no longer
// serves to the queue, and once everything is listed those that the member has.
func (i *Importer) watchHub(ctx context.Context, q queue) error {
	onImport, err := i.hub.imports.AddEventHandler(i.handler(q, client.ObjectKeyFromObject, func(client.Object) string { return theImport }))
	if err != nil {
		return fmt.Errorf("watch served ServiceImports: %w", err)
	}
	onSlice, err := i.hub.slices.AddEventHandler(i.handler(q, serviceOf, client.Object.GetName))
	if err != nil {
		return fmt.Errorf("watch served EndpointSlices: %w", err)
	}
	go func() {
		if !cache.WaitForCacheSync(ctx.Done(), onImport.HasSynced, onSlice.HasSynced) {
			return
		}
		for _, r := range requestsOf(i.all()) {
			q.Add(r)
		}
	}()
	return nil
}

// handler notes what the hub says of an object, and adds its service to the queue.
func (i *Importer) handler(q queue, service func(client.Object) types.NamespacedName, name func(client.Object) string) cache.ResourceEventHandler {
	serves := func(o any) {
		object := o.(client.Object)
		i.silence.serves(service(object), name(object))
		q.Add(reconcile.Request{NamespacedName: service(object)})
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    serves,
		UpdateFunc: func(_, o any) { serves(o) },
		DeleteFunc: func(o any) {
			missing, isMissing := o.(cache.DeletedFinalStateUnknown) // from a list that lacks it
			if isMissing {
				o = missing.Obj
			}
			object := o.(client.Object)
			if !isMissing {
				i.silence.reports(service(object), name(object))
			}
			q.Add(reconcile.Request{NamespacedName: service(object)})
		},
	}
}

// watchHubImports adds the names of served imports that are new or changed to the queue.
func (i *Importer) watchHubImports(_ context.Context, q queue) error {
	add := func(o any) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o.(client.Object))})
	}
	_, err := i.hub.imports.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	if err != nil {
		return fmt.Errorf("watch served ServiceImports: %w", err)
	}
	return nil
}

// imports are the services of which the member has something that Crossway made:
// what ended half way may have left any of it.
func (i *Importer) imports() []types.NamespacedName {
	keys := map[types.NamespacedName]bool{}
	for _, key := range i.serviceImports() {
		keys[key] = true
	}
	var services corev1.ServiceList
	var slicesOf discoveryv1.EndpointSliceList
	err := errors.Join(i.local.List(context.Background(), &services, ours, client.UnsafeDisableDeepCopy),
		i.local.List(context.Background(), &slicesOf, client.MatchingLabels{discoveryv1.LabelManagedBy: v1alpha1.ManagedByImports}, client.UnsafeDisableDeepCopy))
	if err != nil {
		return nil // the cache is stopping: each key comes again after the next start
	}
	for j := range services.Items {
		keys[serviceOf(&services.Items[j])] = true
	}
	for j := range slicesOf.Items {
		keys[serviceOf(&slicesOf.Items[j])] = true
	}
	return slices.Collect(maps.Keys(keys))
}

var ours = client.MatchingLabels{serviceimport.LabelManagedBy: serviceimport.ManagedBy}

// serviceImports are the services with a ServiceImport that came from a member API.
func (i *Importer) serviceImports() (keys []types.NamespacedName) {
	var imports mcsv1beta1.ServiceImportList
	if err := i.local.List(context.Background(), &imports, ours, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping: each key comes again after the next start
	}
	for j := range imports.Items {
		if imported(&imports.Items[j]) {
			keys = append(keys, client.ObjectKeyFromObject(&imports.Items[j]))
		}
	}
	return keys
}

// all are the services of which the member has or should have something: a key
// whose first writes are under way is among the latter only.
func (i *Importer) all() []types.NamespacedName { return append(i.imports(), i.hub.services("")...) }

// requestsOfService returns the import of a derived Service, or that of the
// member's own Service if there is one.
func (i *Importer) requestsOfService(ctx context.Context, o client.Object) []reconcile.Request {
	if serviceimport.OurService(o.(*corev1.Service)) || o.GetLabels()[mcsv1beta1.LabelServiceName] != "" {
		return []reconcile.Request{{NamespacedName: serviceOf(o)}}
	}
	if strings.HasPrefix(o.GetName(), serviceimport.DerivedPrefix) { // somebody else's, under a name that an import may wait for
		return requestsOf(slices.DeleteFunc(i.hub.services(o.GetNamespace()), func(key types.NamespacedName) bool {
			return serviceimport.DerivedName(key.Name) != o.GetName()
		}))
	}
	return i.requestsOfExport(ctx, o)
}

// derived lets through Services under the names of derived ones, whoever made them.
var derived = predicate.NewPredicateFuncs(func(o client.Object) bool { return strings.HasPrefix(o.GetName(), serviceimport.DerivedPrefix) })

func (i *Importer) requestsOfSlice(ctx context.Context, o client.Object) []reconcile.Request {
	if requests := requestsOfImportedSlice(ctx, o); requests != nil {
		return requests
	}
	name := o.GetLabels()[discoveryv1.LabelServiceName]
	return i.requestsOfExport(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: name}})
}

func requestsOfImportedSlice(_ context.Context, o client.Object) []reconcile.Request {
	if serviceimport.OurSlice(o.(*discoveryv1.EndpointSlice)) {
		return []reconcile.Request{{NamespacedName: serviceOf(o)}}
	}
	return nil
}

// requestsOfExport returns the import with the name of an object, if there is one.
func (i *Importer) requestsOfExport(ctx context.Context, o client.Object) []reconcile.Request {
	key := client.ObjectKeyFromObject(o)
	if i.hub.serviceImport(key) == nil && i.local.Get(ctx, key, &mcsv1beta1.ServiceImport{}) != nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

func (i *Importer) requestsOfNamespace(_ context.Context, o client.Object) []reconcile.Request {
	return requestsOf(i.hub.services(o.GetName()))
}

// requestsOfNode returns all imports if the zones of the nodes are others than before.
func (i *Importer) requestsOfNode(ctx context.Context, _ client.Object) []reconcile.Request {
	zones, err := i.zones(ctx)
	if err != nil {
		return nil // the cache is stopping
	}
	if last := i.lastZones.Swap(&zones); last != nil && slices.Equal(*last, zones) {
		return nil
	}
	return requestsOf(i.all())
}

func requestsOf(keys []types.NamespacedName) []reconcile.Request {
	var requests []reconcile.Request
	for _, key := range keys {
		requests = append(requests, reconcile.Request{NamespacedName: key})
	}
	return requests
}

// deletionChanged ignores updates that neither begin nor end an object.
var deletionChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	return (u.ObjectOld.GetDeletionTimestamp() == nil) != (u.ObjectNew.GetDeletionTimestamp() == nil) ||
		u.ObjectOld.GetUID() != u.ObjectNew.GetUID()
}}

// zoneChanged ignores updates that leave a Node in its zone.
var zoneChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	return u.ObjectOld.GetLabels()[corev1.LabelTopologyZone] != u.ObjectNew.GetLabels()[corev1.LabelTopologyZone]
}}
