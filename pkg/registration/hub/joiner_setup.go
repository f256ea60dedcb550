package hub

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// SetupWithManager adds the controller to the hub's manager. It writes while the
// replica leads.
func (j *Joiner) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := ctrl.NewControllerManagedBy(mgr).Named("joining").
		Watches(&v1alpha1.MemberCluster{}, keyOf(memberOfCluster), builder.WithPredicates(joiningChanged)).
		Watches(&certificatesv1.CertificateSigningRequest{}, keyOf(memberOfRequest)).
		Watches(&corev1.ServiceAccount{}, keyOf(memberOfAccount)).
		Watches(&coordinationv1.Lease{}, writtenByMember(), builder.WithPredicates(usedCredentialChanged)).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(j))
	if err != nil {
		return fmt.Errorf("controller of joining: %w", err)
	}
	return nil
}

// joiningChanged ignores updates of what else a MemberCluster's status has.
var joiningChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*v1alpha1.MemberCluster), u.ObjectNew.(*v1alpha1.MemberCluster)
	return before.UID != after.UID || before.Generation != after.Generation || credentialChanges.Update(u)
}}

// usedCredentialChanged ignores the renewals of a Lease.
var usedCredentialChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	return u.ObjectOld.GetAnnotations()[v1alpha1.AnnotationCredential] != u.ObjectNew.GetAnnotations()[v1alpha1.AnnotationCredential]
}}

// keyOf has the member that an object concerns reconciled.
func keyOf(member func(client.Object) (fleet.ClusterName, bool)) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		name, ok := member(o)
		if !ok {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: string(name)}}}
	})
}

// memberWriteDelay is how soon the hub looks at what a member itself wrote. However often
// it writes, that costs the hub two looks a second, and one write of a status for each.
const memberWriteDelay = 500 * time.Millisecond

// writtenByMember is keyOf for objects in a member's namespace that the member writes.
func writtenByMember() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	later := func(o client.Object, q queue) {
		if name, ok := memberOfObject(o); ok { // the queue has a key once
			q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: string(name)}}, memberWriteDelay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { later(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { later(e.ObjectNew, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { later(e.Object, q) },
	}
}

// memberOfCluster is the member that has the object's name.
func memberOfCluster(o client.Object) (fleet.ClusterName, bool) {
	return fleet.ClusterName(o.GetName()), true
}

func memberOfRequest(o client.Object) (fleet.ClusterName, bool) {
	return registration.MemberOfRequester(o.(*certificatesv1.CertificateSigningRequest))
}

func memberOfAccount(o client.Object) (fleet.ClusterName, bool) {
	if o.GetNamespace() != v1alpha1.MembersNamespace {
		return "", false
	}
	if cluster, _, ok := registration.ParseMemberJoinUser(o.GetName()); ok {
		return cluster, true
	}
	cluster, _, ok := registration.ParseMemberAccount(o.GetName())
	return cluster, ok
}

func memberOfObject(o client.Object) (fleet.ClusterName, bool) {
	name, ok := v1alpha1.MemberOfNamespace(o.GetNamespace())
	return fleet.ClusterName(name), ok
}

func memberOfNamespace(o client.Object) (fleet.ClusterName, bool) {
	name, ok := v1alpha1.MemberOfNamespace(o.GetName())
	return fleet.ClusterName(name), ok
}
