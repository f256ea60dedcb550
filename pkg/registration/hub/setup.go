package hub

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// CacheByObject is what the hub's cache must hold for a Registrar, for the
// manager's options: of all Leases only those of agents, of all Roles and quotas only
// ours, of all ServiceAccounts only those of members, and no CSRs of kubelets.
func CacheByObject() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&coordinationv1.Lease{}:  {Field: fields.OneTermEqualSelector("metadata.name", v1alpha1.AgentLease)},
		&corev1.ResourceQuota{}:  {Field: fields.OneTermEqualSelector("metadata.name", registration.RoleName)},
		&rbacv1.Role{}:           {Field: fields.OneTermEqualSelector("metadata.name", registration.RoleName)},
		&rbacv1.RoleBinding{}:    {Field: fields.OneTermEqualSelector("metadata.name", registration.RoleName)},
		&corev1.ServiceAccount{}: {Namespaces: map[string]cache.Config{v1alpha1.MembersNamespace: {}}},
		&certificatesv1.CertificateSigningRequest{}: {Field: fields.AndSelectors(
			fields.OneTermNotEqualSelector("spec.signerName", certificatesv1.KubeAPIServerClientKubeletSignerName),
			fields.OneTermNotEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName))},
	}
}

// SetupWithManager adds the controller to the hub's manager. It writes while the
// replica leads.
func (r *Registrar) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := ctrl.NewControllerManagedBy(mgr).Named("membercluster").
		Watches(&v1alpha1.MemberCluster{}, handler.EnqueueRequestsFromMapFunc(r.everyMember), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.MemberCluster{}, keyOf(memberOfCluster), builder.WithPredicates(credentialChanges)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.membersOfNamespace)).
		Watches(&corev1.ResourceQuota{}, handler.EnqueueRequestsFromMapFunc(r.membersOfObject), builder.WithPredicates(quotaChanged)).
		Watches(&rbacv1.Role{}, handler.EnqueueRequestsFromMapFunc(r.membersOfObject)).
		Watches(&rbacv1.RoleBinding{}, handler.EnqueueRequestsFromMapFunc(r.membersOfObject)).
		Watches(&coordinationv1.Lease{}, writtenByMember()).
		Watches(&v1alpha1.MemberExport{}, writtenByMember(), builder.WithPredicates(refusedEndpointsChanged)).
		WatchesRawSource(source.Channel(r.wakes, keyOf(memberOfCluster))).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(r))
	if err != nil {
		return fmt.Errorf("controller of members: %w", err)
	}
	return nil
}

// credentialChanges are updates of a MemberCluster that change who is let in, or who waits.
var credentialChanges = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false }, DeleteFunc: func(event.DeleteEvent) bool { return false },
	UpdateFunc: func(u event.UpdateEvent) bool {
		before, after := u.ObjectOld.(*v1alpha1.MemberCluster), u.ObjectNew.(*v1alpha1.MemberCluster)
		return !apiequality.Semantic.DeepEqual(before.Status.Credential, after.Status.Credential) ||
			!apiequality.Semantic.DeepEqual(before.Status.JoinRequest, after.Status.JoinRequest)
	},
}

// quotaChanged ignores updates of what a quota has counted: each new object in the namespace makes one.
var quotaChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	after := u.ObjectNew.(*corev1.ResourceQuota)
	return len(uncounted(after)) > 0 || !apiequality.Semantic.DeepEqual(u.ObjectOld.(*corev1.ResourceQuota).Spec, after.Spec)
}}

// refusedEndpointsChanged ignores changes of an export that do not change a
// MemberCluster's conditions: each key lists all exports of the member.
var refusedEndpointsChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*v1alpha1.MemberExport), u.ObjectNew.(*v1alpha1.MemberExport)
	return hasRefusedEndpoints(before) != hasRefusedEndpoints(after)
}}

func hasRefusedEndpoints(e *v1alpha1.MemberExport) bool {
	return meta.IsStatusConditionFalse(e.Status.Conditions, condition.EndpointsAdmitted)
}

// everyMember returns all MemberClusters and the name of o, which may be a
// deleted MemberCluster. A change of one concerns all others, since their ranges
// must not overlap. The name of o is also what has fleet objects made again
// while there is no member.
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

// membersOfNamespace returns the members that a namespace concerns, whoever made it.
func (r *Registrar) membersOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.membersIn(ctx, o.GetName(), o)
}

// membersOfObject returns the members that an object concerns by its namespace.
func (r *Registrar) membersOfObject(ctx context.Context, o client.Object) []reconcile.Request {
	return r.membersIn(ctx, o.GetNamespace(), o)
}

// membersIn returns the member that a namespace belongs to. The fleet's belongs
// to all, and the first of their keys has its objects made again.
func (r *Registrar) membersIn(ctx context.Context, namespace string, o client.Object) []reconcile.Request {
	if namespace == v1alpha1.FleetNamespace {
		return r.everyMember(ctx, o)
	}
	if name, ok := v1alpha1.MemberOfNamespace(namespace); ok {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
	}
	return nil
}
