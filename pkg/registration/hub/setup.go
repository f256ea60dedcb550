package hub

import (
	"context"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/registration"
)

const firstRetry, lastRetry = 5 * time.Millisecond, 5 * time.Second

// CacheByObject is what the hub's cache must hold for a Registrar, for the
// manager's options: of all Leases only those of agents, of all Roles only ours.
func CacheByObject() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&coordinationv1.Lease{}: {Field: fields.OneTermEqualSelector("metadata.name", v1alpha1.AgentLease)},
		&rbacv1.Role{}:          {Field: fields.OneTermEqualSelector("metadata.name", registration.RoleName)},
		&rbacv1.RoleBinding{}:   {Field: fields.OneTermEqualSelector("metadata.name", registration.RoleName)},
	}
}

// SetupWithManager adds the controller to the hub's manager.
func (r *Registrar) SetupWithManager(mgr ctrl.Manager) error {
	warm := true
	err := ctrl.NewControllerManagedBy(mgr).Named("membercluster").
		Watches(&v1alpha1.MemberCluster{}, handler.EnqueueRequestsFromMapFunc(r.everyMember), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.membersOfNamespace)).
		Watches(&rbacv1.Role{}, handler.EnqueueRequestsFromMapFunc(r.roleChanged), builder.WithPredicates(touched)).
		Watches(&rbacv1.RoleBinding{}, handler.EnqueueRequestsFromMapFunc(r.roleChanged), builder.WithPredicates(touched)).
		Watches(&coordinationv1.Lease{}, handler.EnqueueRequestsFromMapFunc(memberOfObject)).
		Watches(&v1alpha1.MemberExport{}, handler.EnqueueRequestsFromMapFunc(memberOfObject), builder.WithPredicates(refusalChanged)).
		WithOptions(controller.Options{
			EnableWarmup: &warm,
			RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("controller of members: %w", err)
	}
	return nil
}

// touched leaves out what is made: by us, or in the way of what we make.
var touched = predicate.Funcs{CreateFunc: func(event.CreateEvent) bool { return false }}

// roleChanged is whose Role or binding is to be made again.
func (r *Registrar) roleChanged(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() == v1alpha1.FleetNamespace {
		return r.fleetChanged(ctx, o)
	}
	requests := memberOfObject(ctx, o)
	for _, member := range requests {
		r.remember(member.Name, func(m *memory) { m.generation = 0 })
	}
	return requests
}

// fleetChanged has the fleet's namespace, Role and binding made again, with whichever member comes first.
func (r *Registrar) fleetChanged(ctx context.Context, o client.Object) []reconcile.Request {
	r.opened(false)
	return r.everyMember(ctx, o)
}

// refusalChanged leaves out an export's changes that no MemberCluster tells of:
// each costs a look at all exports of the member.
var refusalChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*v1alpha1.MemberExport), u.ObjectNew.(*v1alpha1.MemberExport)
	return refused(before) != refused(after)
}}

func refused(e *v1alpha1.MemberExport) bool {
	return meta.IsStatusConditionFalse(e.Status.Conditions, condition.EndpointsAdmitted)
}

// everyMember is each MemberCluster and the name of the object in hand: a
// MemberCluster that may be gone, for members' ranges must not overlap, so that
// one concerns all; or what has to be made again, also where there is no member.
func (r *Registrar) everyMember(ctx context.Context, o client.Object) []reconcile.Request {
	requests := []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetName()}}}
	var all v1alpha1.MemberClusterList
	if err := r.client.List(ctx, &all, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy); err != nil {
		return requests // the cache is stopping: all come again with the next start
	}
	for i := range all.Items {
		if all.Items[i].Name != o.GetName() {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: all.Items[i].Name}})
		}
	}
	return requests
}

// membersOfNamespace is the member that a namespace was made for, or the one
// whose name it has, where somebody else made it; all, where the fleet's goes.
func (r *Registrar) membersOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetName() == v1alpha1.FleetNamespace {
		return r.fleetChanged(ctx, o)
	}
	name, ok := strings.CutPrefix(o.GetName(), v1alpha1.MemberNamespacePrefix)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
}

func memberOfObject(_ context.Context, o client.Object) []reconcile.Request {
	name, ok := strings.CutPrefix(o.GetNamespace(), v1alpha1.MemberNamespacePrefix)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
}
