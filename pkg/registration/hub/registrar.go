package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// Registrar gives accepted members access to the hub and writes the status of
// every MemberCluster.
type Registrar struct {
	// read-only after NewRegistrar
	client   client.Client
	reserved []netip.Prefix
	now      func() time.Time

	mu         sync.Mutex
	applied    map[string]appliedMember // guarded by mu; by MemberCluster
	fleetReady bool                     // guarded by mu: crossway-fleet has its Role and binding
}

// appliedMember is what the Registrar wrote for one member since it started.
type appliedMember struct {
	uid        types.UID
	generation int64     // of the MemberCluster when the Role and binding were applied; 0: apply them again
	statusAt   time.Time // when the status was written
}

// NewRegistrar makes a Registrar of the hub's own cluster. reserved are the
// hub's own pod and Service ranges, which no member may announce.
func NewRegistrar(c cluster.Cluster, reserved []netip.Prefix) (*Registrar, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Registrar{client: waiting, reserved: reserved, now: time.Now, applied: map[string]appliedMember{}}, nil
}

// Reconcile writes one MemberCluster's objects and status. The key is its name.
func (r *Registrar) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := r.ensureFleetNamespace(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var member v1alpha1.MemberCluster
	if err := r.client.Get(ctx, types.NamespacedName{Name: request.Name}, &member); apierrors.IsNotFound(err) {
		return reconcile.Result{}, r.removeMember(ctx, fleet.ClusterName(request.Name))
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("read MemberCluster %s: %w", request.Name, err)
	}
	state, err := r.ensureMember(ctx, &member)
	if err != nil {
		return reconcile.Result{}, err
	}
	return r.report(ctx, &member, state)
}

// ensureFleetNamespace makes crossway-fleet readable by all members, once after
// each start and whenever something of it was deleted.
func (r *Registrar) ensureFleetNamespace(ctx context.Context) error {
	r.mu.Lock()
	ready := r.fleetReady
	r.mu.Unlock()
	if ready {
		return nil
	}
	objects := registration.FleetObjects()
	state, err := r.ensureNamespace(ctx, &objects.Namespace, false)
	if err != nil || state == registration.NamespaceTerminating { // its end brings a key back
		return err
	}
	r.setFleetReady(true) // before the writes, so that a deletion meanwhile resets it
	if err := r.applyRole(ctx, objects); err != nil {
		r.setFleetReady(false)
		return err
	}
	return nil
}

func (r *Registrar) setFleetReady(ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fleetReady = ready
}

// ensureMember makes the namespace, Role and binding of an accepted member, and
// deletes the binding of a member that is not accepted.
func (r *Registrar) ensureMember(ctx context.Context, member *v1alpha1.MemberCluster) (registration.NamespaceState, error) {
	objects := registration.Objects(fleet.ClusterName(member.Name))
	if !registration.Accepted(member) {
		r.setApplied(member.Name, func(m *appliedMember) { m.uid, m.generation = "", 0 })
		if err := r.client.Delete(ctx, objects.Binding.DeepCopy(), client.DisableReadYourWritesConsistency); client.IgnoreNotFound(err) != nil {
			return registration.NamespaceOurs, fmt.Errorf("delete RoleBinding %s/%s: %w", objects.Binding.Namespace, objects.Binding.Name, err)
		}
		return registration.NamespaceOurs, nil
	}
	state, err := r.ensureNamespace(ctx, &objects.Namespace, true)
	if err != nil || state != registration.NamespaceOurs {
		return state, err
	}
	if m := r.appliedFor(member.Name); m.uid == member.UID && m.generation == member.Generation {
		return state, nil
	}
	r.setApplied(member.Name, func(m *appliedMember) { m.uid, m.generation = member.UID, member.Generation }) // before the writes, as above
	if err := r.applyRole(ctx, objects); err != nil {
		r.setApplied(member.Name, func(m *appliedMember) { m.generation = 0 })
		return state, err
	}
	return state, nil
}

// ensureNamespace creates a namespace that does not exist. An existing one is
// used as it is: if ownLabel is set, it must have the label of want.
func (r *Registrar) ensureNamespace(ctx context.Context, want *corev1.Namespace, ownLabel bool) (registration.NamespaceState, error) {
	var have corev1.Namespace
	err := r.client.Get(ctx, client.ObjectKeyFromObject(want), &have)
	switch {
	case apierrors.IsNotFound(err):
		if err := r.client.Create(ctx, want.DeepCopy()); err != nil {
			return registration.NamespaceOurs, fmt.Errorf("create Namespace %s: %w", want.Name, err)
		}
		r.setApplied(want.Labels[v1alpha1.LabelMember], func(m *appliedMember) { m.generation = 0 }) // the Role was deleted with the old namespace
		return registration.NamespaceOurs, nil
	case err != nil:
		return registration.NamespaceOurs, fmt.Errorf("read Namespace %s: %w", want.Name, err)
	case have.DeletionTimestamp != nil:
		return registration.NamespaceTerminating, nil
	case ownLabel && have.Labels[v1alpha1.LabelMember] != want.Labels[v1alpha1.LabelMember]:
		return registration.NamespaceTaken, nil
	}
	return registration.NamespaceOurs, nil
}

// applyRole writes a Role and its binding. The Role that a binding refers to
// cannot be changed, so a binding to another Role is replaced.
func (r *Registrar) applyRole(ctx context.Context, objects registration.MemberObjects) error {
	if err := apply.Object(ctx, r.client, v1alpha1.HubFieldManager, &objects.Role, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("apply Role in %s: %w", objects.Role.Namespace, err)
	}
	if err := apply.Object(ctx, r.client, v1alpha1.HubFieldManager, objects.Binding.DeepCopy(), client.DisableReadYourWritesConsistency); err == nil {
		return nil
	} else if !apierrors.IsInvalid(err) {
		return fmt.Errorf("apply RoleBinding in %s: %w", objects.Binding.Namespace, err)
	}
	if err := r.client.Delete(ctx, objects.Binding.DeepCopy(), client.DisableReadYourWritesConsistency); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete RoleBinding in %s: %w", objects.Binding.Namespace, err)
	}
	if err := apply.Object(ctx, r.client, v1alpha1.HubFieldManager, &objects.Binding, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("apply RoleBinding in %s: %w", objects.Binding.Namespace, err)
	}
	return nil
}

// removeMember deletes the namespace of a MemberCluster that was deleted, if it
// was made for that MemberCluster.
func (r *Registrar) removeMember(ctx context.Context, name fleet.ClusterName) error {
	r.mu.Lock()
	delete(r.applied, string(name))
	r.mu.Unlock()
	var namespace corev1.Namespace
	if err := r.client.Get(ctx, types.NamespacedName{Name: v1alpha1.MemberNamespace(name)}, &namespace); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("read Namespace %s: %w", v1alpha1.MemberNamespace(name), err)
	}
	if namespace.Labels[v1alpha1.LabelMember] != string(name) || namespace.DeletionTimestamp != nil {
		return nil
	}
	if err := apply.Remove(ctx, r.client, &namespace); err != nil {
		return fmt.Errorf("delete Namespace %s: %w", namespace.Name, err)
	}
	return nil
}

// report writes the status: at once if a condition changed, otherwise at most
// every registration.StatusInterval.
func (r *Registrar) report(ctx context.Context, member *v1alpha1.MemberCluster, state registration.NamespaceState) (reconcile.Result, error) {
	facts, exports, err := r.facts(ctx, member, state)
	if err != nil {
		return reconcile.Result{}, err
	}
	wanted := v1alpha1.MemberClusterStatus{
		Conditions: condition.Stamped(member.Status.Conditions, registration.Conditions(facts), member.Generation, facts.Now),
	}
	due := r.appliedFor(member.Name).statusAt.Add(registration.StatusInterval)
	if apply.SameConditions(member.Status.Conditions, wanted.Conditions) && facts.Now.Before(due) {
		return reconcile.Result{RequeueAfter: sooner(due.Sub(facts.Now), untilSilent(facts))}, nil
	}
	wanted.Exports = int32(len(exports))
	if wanted.Endpoints, err = r.endpoints(ctx, facts.Admission, exports); err != nil {
		return reconcile.Result{}, err
	}
	if facts.LastRenewal != nil {
		wanted.LastHeardTime = ptr.To(metav1.NewTime(facts.LastRenewal.UTC().Truncate(time.Second)))
	}
	if !apiequality.Semantic.DeepEqual(member.Status, wanted) {
		status := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member.Name}, Status: wanted}
		if err := apply.Status(ctx, r.client, v1alpha1.HubFieldManager, status); err != nil {
			return reconcile.Result{}, err
		}
	}
	r.setApplied(member.Name, func(m *appliedMember) { m.statusAt = facts.Now })
	return reconcile.Result{RequeueAfter: sooner(registration.StatusInterval, untilSilent(facts))}, nil
}

// facts reads what the status depends on, and the member's exports.
func (r *Registrar) facts(ctx context.Context, member *v1alpha1.MemberCluster, state registration.NamespaceState) (registration.MemberFacts, []v1alpha1.MemberExport, error) {
	name := fleet.ClusterName(member.Name)
	facts := registration.MemberFacts{Member: *member, Namespace: state, Now: r.now()}
	var all v1alpha1.MemberClusterList
	if err := r.client.List(ctx, &all, client.DisableReadYourWritesConsistency); err != nil {
		return facts, nil, fmt.Errorf("list MemberClusters: %w", err)
	}
	facts.Admission = registration.Admissions(all.Items, r.reserved)[name]
	var lease coordinationv1.Lease
	err := r.client.Get(ctx, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(name), Name: v1alpha1.AgentLease}, &lease)
	if client.IgnoreNotFound(err) != nil {
		return facts, nil, fmt.Errorf("read Lease of %s: %w", name, err)
	}
	if err == nil && lease.Spec.RenewTime != nil {
		facts.LastRenewal = &lease.Spec.RenewTime.Time
	}
	var exports v1alpha1.MemberExportList
	if err := r.client.List(ctx, &exports, client.InNamespace(v1alpha1.MemberNamespace(name)), client.UnsafeDisableDeepCopy); err != nil {
		return facts, nil, fmt.Errorf("list MemberExports of %s: %w", name, err)
	}
	for i := range exports.Items {
		e := &exports.Items[i]
		if hasRefusedEndpoints(e) {
			facts.Refused = append(facts.Refused, fleet.ServiceName(e.Spec.Service).String())
		}
	}
	slices.Sort(facts.Refused)
	return facts, exports.Items, nil
}

// endpoints counts the ready, admitted endpoints of a member's exports.
func (r *Registrar) endpoints(ctx context.Context, admission registration.Admission, exports []v1alpha1.MemberExport) (int32, error) {
	if len(exports) == 0 {
		return 0, nil
	}
	exported := map[fleet.ServiceName]bool{}
	for i := range exports {
		exported[fleet.ServiceName(exports[i].Spec.Service)] = true
	}
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(exports[0].Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list EndpointSlices in %s: %w", exports[0].Namespace, err)
	}
	var count int32
	for i := range list.Items {
		s := &list.Items[i]
		if exported[fleet.ServiceName{Namespace: s.Labels[v1alpha1.LabelServiceNamespace], Name: s.Labels[v1alpha1.LabelServiceName]}] {
			count += readyEndpoints(s, admission)
		}
	}
	return count, nil
}

func readyEndpoints(s *discoveryv1.EndpointSlice, admission registration.Admission) int32 {
	var count int32
	for _, e := range s.Endpoints {
		if len(e.Addresses) == 0 || !ptr.Deref(e.Conditions.Ready, true) {
			continue
		}
		address, err := netip.ParseAddr(e.Addresses[0]) // all of an endpoint's addresses are the same endpoint
		if err == nil && admission.Refuses(address) == "" {
			count++
		}
	}
	return count
}

// untilSilent is the time until the last renewal is too old. 0: it is too old
// or there was none, and only a renewal changes that.
func untilSilent(f registration.MemberFacts) time.Duration {
	if f.LastRenewal == nil {
		return 0
	}
	return max(f.LastRenewal.Add(v1alpha1.AgentLeaseDuration).Sub(f.Now), 0)
}

// sooner is the shorter of two delays; a second delay of 0 does not count.
func sooner(a, b time.Duration) time.Duration {
	if b > 0 && b < a {
		return b
	}
	return a
}

func (r *Registrar) appliedFor(member string) appliedMember {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied[member]
}

func (r *Registrar) setApplied(member string, change func(*appliedMember)) {
	if member == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.applied[member]
	change(&m)
	r.applied[member] = m
}
