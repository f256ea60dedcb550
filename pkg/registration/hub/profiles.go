package hub

import (
	"context"
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Profiles writes a ClusterProfile for each accepted member, for schedulers and other
// programs that read which clusters there are (KEP-4322). Crossway reads none of them.
type Profiles struct {
	client     client.Client
	clusterSet string
	now        func() time.Time
}

// NewProfiles makes Profiles of a hub. clusterSet is the name of the fleet.
func NewProfiles(c cluster.Cluster, clusterSet string) (*Profiles, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Profiles{client: waiting, clusterSet: clusterSet, now: time.Now}, nil
}

// Reconcile writes or removes the profile of one member, whose name is the key. A profile
// of that name that somebody else made stays as it is.
func (p *Profiles) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	member, err := apply.Found(ctx, p.client, types.NamespacedName{Name: request.Name}, &v1alpha1.MemberCluster{})
	if err != nil {
		return reconcile.Result{}, err
	}
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: request.Name}
	have, err := apply.Found(ctx, p.client, key, registration.OptionalObject(registration.ClusterProfileKind)) // from the API server
	if err != nil {
		return reconcile.Result{}, err
	}
	wanted := member != nil && registration.Accepted(member)
	switch {
	case have != nil && !registration.ClusterProfileOurs(have):
		if wanted {
			log.FromContext(ctx).Info("somebody else made this ClusterProfile: it stays as it is; delete it to have it written", "profile", key)
		}
		return reconcile.Result{}, nil
	case !wanted && have != nil:
		return reconcile.Result{}, apply.Remove(ctx, p.client, have)
	case !wanted:
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, p.write(ctx, member, have)
}

func (p *Profiles) write(ctx context.Context, member *v1alpha1.MemberCluster, have *unstructured.Unstructured) error {
	facts := registration.ProfileFacts{Member: member, ClusterSet: p.clusterSet}
	lease, err := apply.Found(ctx, p.client, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(member.Name), Name: v1alpha1.AgentLease}, &coordinationv1.Lease{})
	if err != nil {
		return err
	}
	if lease != nil {
		facts.Lease = lease.Annotations
	}
	want := registration.ClusterProfile(facts)
	if have == nil || !hasLabels(have, want.GetLabels()) || !apiequality.Semantic.DeepEqual(have.Object["spec"], want.Object["spec"]) {
		if err := apply.Object(ctx, p.client, v1alpha1.HubFieldManager, want); err != nil {
			return err
		}
		have = want
	}
	status, err := registration.ClusterProfileStatus(facts, have, p.now())
	if err != nil {
		return fmt.Errorf("status of ClusterProfile %s: %w", member.Name, err)
	}
	if apiequality.Semantic.DeepEqual(have.Object["status"], any(status)) {
		return nil
	}
	have = have.DeepCopy()
	have.Object["status"] = status
	return apply.Status(ctx, p.client, v1alpha1.HubFieldManager, have)
}

// SetupWithManager adds the controller once the API server serves ClusterProfiles. It
// writes while the replica leads.
func (p *Profiles) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	return mgr.Add(program.WhenServed{
		Reader: mgr.GetAPIReader(), Kinds: []schema.GroupVersionKind{registration.ClusterProfileKind}, Namespace: v1alpha1.FleetNamespace,
		Then: func(schema.GroupVersionKind) error { return p.setup(mgr, leadership) },
	})
}

func (p *Profiles) setup(mgr ctrl.Manager, leadership *program.Leadership) error {
	err := ctrl.NewControllerManagedBy(mgr).Named("clusterprofile").
		Watches(&v1alpha1.MemberCluster{}, keyOf(memberOfCluster), builder.WithPredicates(memberChanged)).
		Watches(&coordinationv1.Lease{}, writtenByMember(), builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		Watches(registration.OptionalObject(registration.ClusterProfileKind), keyOf(memberOfCluster)).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(p))
	if err != nil {
		return fmt.Errorf("controller of ClusterProfiles: %w", err)
	}
	return nil
}

// memberChanged ignores the numbers and times in the status of a MemberCluster.
var memberChanged = predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
	before, after := u.ObjectOld.(*v1alpha1.MemberCluster), u.ObjectNew.(*v1alpha1.MemberCluster)
	return before.Generation != after.Generation || !maps.Equal(before.Labels, after.Labels) ||
		(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
		!apply.SameConditions(before.Status.Conditions, after.Status.Conditions)
}}
