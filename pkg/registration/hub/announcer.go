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
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Announcer writes ConfigMap crossway-member-api, from which agents know where the
// member API is. Without a URL there is no such ConfigMap.
type Announcer struct {
	client    client.Client
	namespace string
	url       string
}

// NewAnnouncer makes an Announcer of a URL. namespace is that of the hub's Secrets.
func NewAnnouncer(c cluster.Cluster, namespace, url string) (*Announcer, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Announcer{client: waiting, namespace: namespace, url: url}, nil
}

// Reconcile writes the ConfigMap. There is one key.
func (a *Announcer) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	have, err := apply.Found(ctx, a.client, announcementKey, &corev1.ConfigMap{})
	if err != nil {
		return reconcile.Result{}, err
	}
	if a.url == "" {
		if have == nil {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, apply.Remove(ctx, a.client, have)
	}
	secret, err := apply.Found(ctx, a.client, types.NamespacedName{Namespace: a.namespace, Name: registration.XDSSecret}, &corev1.Secret{})
	if err != nil || secret == nil { // its arrival brings the key back
		return reconcile.Result{}, err
	}
	namespace, err := apply.Found(ctx, a.client, types.NamespacedName{Name: v1alpha1.FleetNamespace}, &corev1.Namespace{})
	if err != nil || namespace == nil || namespace.DeletionTimestamp != nil { // as does its
		return reconcile.Result{}, err
	}
	want := registration.MemberAPI(a.url, secret.Data[registration.CAKey])
	if have != nil && have.DeletionTimestamp == nil && maps.Equal(have.Data, want.Data) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, apply.Object(ctx, a.client, v1alpha1.HubFieldManager, want)
}

var announcementKey = types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: v1alpha1.MemberAPIConfigMap}

// SetupWithManager adds the controller to the hub's manager. It writes while the
// replica leads.
func (a *Announcer) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	named := func(namespace, name string) builder.WatchesOption {
		return builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			return o.GetNamespace() == namespace && o.GetName() == name
		}))
	}
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: announcementKey}}
	})
	err := ctrl.NewControllerManagedBy(mgr).Named("member-api").
		Watches(&corev1.ConfigMap{}, one, named(announcementKey.Namespace, announcementKey.Name)).
		Watches(&corev1.Secret{}, one, named(a.namespace, registration.XDSSecret)).
		Watches(&corev1.Namespace{}, one, named("", v1alpha1.FleetNamespace)).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(a))
	if err != nil {
		return fmt.Errorf("controller of the member API's address: %w", err)
	}
	return nil
}
