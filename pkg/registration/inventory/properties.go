package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// askInterval is between two questions to the hub for the fleet's name.
	askInterval = time.Minute
	// hubTimeout is how long one may take.
	hubTimeout = 5 * time.Second
)

var names = []string{registration.PropertyCluster, registration.PropertyClusterSet}

// Properties writes the ClusterProperties of one member.
type Properties struct {
	// read-only after New
	client client.Client // of the member; it reads from its API server
	hub    client.Reader
	member fleet.ClusterName

	kind schema.GroupVersionKind // that is served; set before Reconcile is called
	// told are the objects of others that were logged. Only Reconcile uses it.
	told map[types.UID]string
}

// New makes Properties. c is a client of the member that reads from the API server what
// has no Go type, and hub reads from the hub's.
func New(c client.Client, hub client.Reader, member fleet.ClusterName) *Properties {
	return &Properties{client: c, hub: hub, member: member, told: map[types.UID]string{}}
}

// Reconcile writes one of the two, whose name is the key.
func (p *Properties) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	value, again := string(p.member), time.Duration(0)
	if request.Name == registration.PropertyClusterSet {
		again = askInterval
		if value = p.clusterSet(ctx); value == "" { // unknown now: what there is stays
			return reconcile.Result{RequeueAfter: again}, nil
		}
	}
	have, err := apply.Found(ctx, p.client, types.NamespacedName{Name: request.Name}, registration.OptionalObject(p.kind))
	if err != nil {
		return reconcile.Result{}, err
	}
	want := registration.ClusterProperty(p.kind, request.Name, value)
	said := ""
	if have != nil {
		said, _, _ = unstructured.NestedString(have.Object, "spec", "value")
	}
	switch {
	case have != nil && !registration.ClusterPropertyOurs(have):
		if said != value && p.told[have.GetUID()] != said {
			p.told[have.GetUID()] = said
			log.FromContext(ctx).Info("somebody else made this ClusterProperty: it stays as it is; delete it to have it written", "name", request.Name, "value", said, "wanted", value)
		}
	case have == nil || said != value:
		err = apply.Object(ctx, p.client, v1alpha1.AgentFieldManager, want)
	}
	return reconcile.Result{RequeueAfter: again}, err
}

// clusterSet is the fleet's name, or "" while the hub does not tell it.
func (p *Properties) clusterSet(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, hubTimeout)
	defer cancel()
	var m corev1.ConfigMap
	if p.hub.Get(ctx, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(p.member), Name: v1alpha1.MemberAPIConfigMap}, &m) != nil {
		return ""
	}
	return m.Data[v1alpha1.MemberAPIClusterSet]
}

// Withdraw removes what Crossway made of a cluster that leaves. No Properties work.
func Withdraw(ctx context.Context, c client.Client) error {
	var failed []error
	for _, kind := range registration.ClusterPropertyKinds {
		for _, name := range names {
			have, err := apply.Found(ctx, c, types.NamespacedName{Name: name}, registration.OptionalObject(kind))
			if meta.IsNoMatchError(err) { // the CRD is missing
				continue
			}
			if err == nil && have != nil && registration.ClusterPropertyOurs(have) {
				err = apply.Remove(ctx, c, have)
			}
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// SetupWithManager adds the controller once the API server serves ClusterProperties. It
// writes while the replica leads.
func (p *Properties) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := mgr.Add(program.WhenServed{Reader: mgr.GetAPIReader(), Kinds: registration.ClusterPropertyKinds,
		Then: func(served schema.GroupVersionKind) error { return p.setup(served, mgr, leadership) }})
	if err != nil {
		return fmt.Errorf("add ClusterProperties: %w", err)
	}
	return nil
}

func (p *Properties) setup(served schema.GroupVersionKind, mgr ctrl.Manager, leadership *program.Leadership) error {
	p.kind = served
	both := func(queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, name := range names {
			queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
	}
	err := ctrl.NewControllerManagedBy(mgr).Named("clusterproperty").
		Watches(registration.OptionalObject(served), handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			for _, name := range names {
				if o.GetName() == name {
					return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
				}
			}
			return nil
		})).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			both(queue) // neither may be there yet
			return nil
		})).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(p))
	if err != nil {
		return fmt.Errorf("controller of ClusterProperties: %w", err)
	}
	return nil
}
