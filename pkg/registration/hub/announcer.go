package hub

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Announcer writes ConfigMap crossway-member-api into the namespace of each member, from
// which its agent knows where the member API is. Without a URL there is no such ConfigMap.
type Announcer struct {
	client    client.Client
	namespace string
	place     registration.MemberAPIPlace // without a CA
}

// NewAnnouncer makes an Announcer of a place, whose CA it reads. namespace is that of the hub's Secrets.
func NewAnnouncer(c cluster.Cluster, namespace string, place registration.MemberAPIPlace) (*Announcer, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Announcer{client: waiting, namespace: namespace, place: place}, nil
}

// Reconcile writes the ConfigMap of one member. The key is its name. That of a member
// that is not accepted stays as it is.
func (a *Announcer) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	cluster := fleet.ClusterName(request.Name)
	key := types.NamespacedName{Namespace: v1alpha1.MemberNamespace(cluster), Name: v1alpha1.MemberAPIConfigMap}
	member, err := apply.Found(ctx, a.client, types.NamespacedName{Name: request.Name}, &v1alpha1.MemberCluster{})
	if err != nil || member == nil || !registration.Accepted(member) {
		return reconcile.Result{}, err
	}
	have, err := apply.Found(ctx, a.client, key, &corev1.ConfigMap{})
	if err != nil {
		return reconcile.Result{}, err
	}
	if a.place.URL == "" {
		if have == nil {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, apply.Remove(ctx, a.client, have)
	}
	secret, err := apply.Found(ctx, a.client, types.NamespacedName{Namespace: a.namespace, Name: registration.XDSSecret}, &corev1.Secret{})
	if err != nil || secret == nil { // its arrival brings the key back
		return reconcile.Result{}, err
	}
	namespace, err := apply.Found(ctx, a.client, types.NamespacedName{Name: key.Namespace}, &corev1.Namespace{})
	if err != nil || namespace == nil || namespace.DeletionTimestamp != nil || namespace.Labels[v1alpha1.LabelMember] != request.Name { // as does its
		return reconcile.Result{}, err
	}
	place := a.place
	place.CA = secret.Data[registration.CAKey]
	want := registration.MemberAPI(cluster, place)
	if have != nil && have.DeletionTimestamp == nil && maps.Equal(have.Data, want.Data) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, apply.Object(ctx, a.client, v1alpha1.HubFieldManager, want)
}

// SetupWithManager adds the controller to the hub's manager. It writes while the
// replica leads.
func (a *Announcer) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := ctrl.NewControllerManagedBy(mgr).Named("member-api").
		Watches(&v1alpha1.MemberCluster{}, keyOf(memberOfCluster), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.ConfigMap{}, keyOf(memberOfObject), named(v1alpha1.MemberAPIConfigMap)).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(a.all), named(registration.XDSSecret)).
		Watches(&corev1.Namespace{}, keyOf(memberOfNamespace)).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(a))
	if err != nil {
		return fmt.Errorf("controller of the member API's address: %w", err)
	}
	return nil
}

// all are the keys of all members.
func (a *Announcer) all(ctx context.Context, o client.Object) []reconcile.Request {
	var list v1alpha1.MemberClusterList
	if err := a.client.List(ctx, &list, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy); err != nil || o.GetNamespace() != a.namespace {
		return nil // the cache is stopping: all come again with the next start
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: list.Items[i].Name}})
	}
	return requests
}

func named(name string) builder.WatchesOption {
	return builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == name }))
}
