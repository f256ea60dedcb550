package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// Registrar lets members in and says how they are.
type Registrar struct {
	// read-only after NewRegistrar
	client   client.Client
	reserved []netip.Prefix
	now      func() time.Time

	mu      sync.Mutex
	memory  map[string]memory // guarded by mu; by MemberCluster
	fleetOK bool              // guarded by mu: crossway-fleet has its Role
}

// memory is what the Registrar did for one member since it started.
type memory struct {
	uid        types.UID
	generation int64 // for which the Role and binding were last made
	written    time.Time
}

// NewRegistrar makes a Registrar of the hub's own cluster. reserved are the
// hub's own pod and service ranges, which no member may announce.
func NewRegistrar(c cluster.Cluster, reserved []netip.Prefix) (*Registrar, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Registrar{client: waiting, reserved: reserved, now: time.Now, memory: map[string]memory{}}, nil
}

// Reconcile makes one MemberCluster's objects and status. The key is its name.
func (r *Registrar) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := r.openFleet(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var member v1alpha1.MemberCluster
	if err := r.client.Get(ctx, types.NamespacedName{Name: request.Name}, &member); apierrors.IsNotFound(err) {
		return reconcile.Result{}, r.dismiss(ctx, fleet.ClusterName(request.Name))
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("read MemberCluster %s: %w", request.Name, err)
	}
	state, err := r.letIn(ctx, &member)
	if err != nil {
		return reconcile.Result{}, err
	}
	return r.report(ctx, &member, state)
}

// openFleet makes crossway-fleet readable by all members, once each start and
// whenever something of it was lost.
func (r *Registrar) openFleet(ctx context.Context) error {
	r.mu.Lock()
	done := r.fleetOK
	r.mu.Unlock()
	if done {
		return nil
	}
	objects := registration.FleetObjects()
	state, err := r.makeNamespace(ctx, &objects.Namespace, false)
	if err != nil || state == registration.NamespaceTerminating { // that it is gone brings us back
		return err
	}
	r.opened(true) // before, so that what is lost meanwhile is noticed
	if err := r.applyRole(ctx, objects); err != nil {
		r.opened(false)
		return err
	}
	return nil
}

func (r *Registrar) opened(ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fleetOK = ok
}

// letIn makes what an accepted member needs, and takes the binding from one
// that is not accepted.
func (r *Registrar) letIn(ctx context.Context, member *v1alpha1.MemberCluster) (registration.NamespaceState, error) {
	objects := registration.Objects(fleet.ClusterName(member.Name))
	if !registration.Accepted(member) {
		r.remember(member.Name, func(m *memory) { m.uid, m.generation = "", 0 })
		if err := r.client.Delete(ctx, objects.Binding.DeepCopy(), client.DisableReadYourWritesConsistency); client.IgnoreNotFound(err) != nil {
			return registration.NamespaceOurs, fmt.Errorf("delete RoleBinding %s/%s: %w", objects.Binding.Namespace, objects.Binding.Name, err)
		}
		return registration.NamespaceOurs, nil
	}
	state, err := r.makeNamespace(ctx, &objects.Namespace, true)
	if err != nil || state != registration.NamespaceOurs {
		return state, err
	}
	if m := r.recall(member.Name); m.uid == member.UID && m.generation == member.Generation {
		return state, nil
	}
	r.remember(member.Name, func(m *memory) { m.uid, m.generation = member.UID, member.Generation }) // before, as above
	if err := r.applyRole(ctx, objects); err != nil {
		r.remember(member.Name, func(m *memory) { m.generation = 0 })
		return state, err
	}
	return state, nil
}

// makeNamespace creates a namespace that does not exist. One that exists is
// only used: where a label is asked for, it must have it already.
func (r *Registrar) makeNamespace(ctx context.Context, want *corev1.Namespace, labelled bool) (registration.NamespaceState, error) {
	var have corev1.Namespace
	err := r.client.Get(ctx, client.ObjectKeyFromObject(want), &have)
	switch {
	case apierrors.IsNotFound(err):
		if err := r.client.Create(ctx, want.DeepCopy()); err != nil {
			return registration.NamespaceOurs, fmt.Errorf("create Namespace %s: %w", want.Name, err)
		}
		r.remember(want.Labels[v1alpha1.LabelMember], func(m *memory) { m.generation = 0 }) // an old Role went with the old namespace
		return registration.NamespaceOurs, nil
	case err != nil:
		return registration.NamespaceOurs, fmt.Errorf("read Namespace %s: %w", want.Name, err)
	case have.DeletionTimestamp != nil:
		return registration.NamespaceTerminating, nil
	case labelled && have.Labels[v1alpha1.LabelMember] != want.Labels[v1alpha1.LabelMember]:
		return registration.NamespaceTaken, nil
	}
	return registration.NamespaceOurs, nil
}

// applyRole writes a Role and its binding. A binding to another Role, which
// cannot be changed, is replaced.
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

// dismiss deletes the namespace of a MemberCluster that is gone, if it was
// made for it.
func (r *Registrar) dismiss(ctx context.Context, name fleet.ClusterName) error {
	r.mu.Lock()
	delete(r.memory, string(name))
	r.mu.Unlock()
	var namespace corev1.Namespace
	if err := r.client.Get(ctx, types.NamespacedName{Name: registration.Namespace(name)}, &namespace); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("read Namespace %s: %w", registration.Namespace(name), err)
	}
	if namespace.Labels[v1alpha1.LabelMember] != string(name) || namespace.DeletionTimestamp != nil {
		return nil
	}
	if err := apply.Remove(ctx, r.client, &namespace); err != nil {
		return fmt.Errorf("delete Namespace %s: %w", namespace.Name, err)
	}
	return nil
}

// report writes the status: at once where a condition changed, otherwise at
// most every registration.StatusInterval.
func (r *Registrar) report(ctx context.Context, member *v1alpha1.MemberCluster, state registration.NamespaceState) (reconcile.Result, error) {
	facts, exports, err := r.facts(ctx, member, state)
	if err != nil {
		return reconcile.Result{}, err
	}
	wanted := v1alpha1.MemberClusterStatus{
		Conditions: condition.Stamped(member.Status.Conditions, registration.Verdicts(facts), member.Generation, facts.Now),
	}
	due := r.recall(member.Name).written.Add(registration.StatusInterval)
	have := slices.SortedFunc(slices.Values(member.Status.Conditions), func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	changed := !apiequality.Semantic.DeepEqual(have, wanted.Conditions)
	if !changed && facts.Now.Before(due) {
		return reconcile.Result{RequeueAfter: sooner(due.Sub(facts.Now), untilSilent(facts))}, nil
	}
	wanted.Exports = int32(len(exports))
	if wanted.Endpoints, err = r.endpoints(ctx, facts.Admission, exports); err != nil {
		return reconcile.Result{}, err
	}
	if facts.Heard != nil {
		heard := metav1.NewTime(facts.Heard.UTC().Truncate(time.Second))
		wanted.LastHeardTime = &heard
	}
	if err := r.writeStatus(ctx, member, wanted); err != nil {
		return reconcile.Result{}, err
	}
	r.remember(member.Name, func(m *memory) { m.written = facts.Now })
	return reconcile.Result{RequeueAfter: sooner(registration.StatusInterval, untilSilent(facts))}, nil
}

func (r *Registrar) writeStatus(ctx context.Context, member *v1alpha1.MemberCluster, wanted v1alpha1.MemberClusterStatus) error {
	have := member.Status.DeepCopy()
	slices.SortFunc(have.Conditions, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	if apiequality.Semantic.DeepEqual(*have, wanted) {
		return nil
	}
	status := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member.Name}, Status: wanted}
	if err := apply.Status(ctx, r.client, v1alpha1.HubFieldManager, status); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of MemberCluster %s: %w", member.Name, err)
	}
	return nil
}

// facts reads what the status is made of, and the member's exports.
func (r *Registrar) facts(ctx context.Context, member *v1alpha1.MemberCluster, state registration.NamespaceState) (registration.MemberFacts, []v1alpha1.MemberExport, error) {
	name := fleet.ClusterName(member.Name)
	facts := registration.MemberFacts{Member: *member, Namespace: state, Now: r.now()}
	var all v1alpha1.MemberClusterList
	if err := r.client.List(ctx, &all, client.DisableReadYourWritesConsistency); err != nil {
		return facts, nil, fmt.Errorf("list MemberClusters: %w", err)
	}
	facts.Admission = registration.Admissions(all.Items, r.reserved)[name]
	var lease coordinationv1.Lease
	err := r.client.Get(ctx, types.NamespacedName{Namespace: registration.Namespace(name), Name: v1alpha1.AgentLease}, &lease)
	if client.IgnoreNotFound(err) != nil {
		return facts, nil, fmt.Errorf("read Lease of %s: %w", name, err)
	}
	if err == nil && lease.Spec.RenewTime != nil {
		facts.Heard = &lease.Spec.RenewTime.Time
	}
	var exports v1alpha1.MemberExportList
	if err := r.client.List(ctx, &exports, client.InNamespace(registration.Namespace(name)), client.UnsafeDisableDeepCopy); err != nil {
		return facts, nil, fmt.Errorf("list MemberExports of %s: %w", name, err)
	}
	for i := range exports.Items {
		e := &exports.Items[i]
		if refused(e) {
			facts.Refused = append(facts.Refused, e.Spec.Service.Namespace+"/"+e.Spec.Service.Name)
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
		exported[fleet.ServiceName{Namespace: exports[i].Spec.Service.Namespace, Name: exports[i].Spec.Service.Name}] = true
	}
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(exports[0].Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list EndpointSlices in %s: %w", exports[0].Namespace, err)
	}
	var count int32
	for i := range list.Items {
		s := &list.Items[i]
		if exported[fleet.ServiceName{Namespace: s.Labels[v1alpha1.LabelServiceNamespace], Name: s.Labels[v1alpha1.LabelServiceName]}] {
			count += readyIn(s, admission)
		}
	}
	return count, nil
}

func readyIn(s *discoveryv1.EndpointSlice, admission registration.Admission) int32 {
	var count int32
	for _, e := range s.Endpoints {
		if len(e.Addresses) == 0 || (e.Conditions.Ready != nil && !*e.Conditions.Ready) {
			continue
		}
		address, err := netip.ParseAddr(e.Addresses[0]) // all of an endpoint's addresses are the same endpoint
		if err == nil && admission.Refuses(address) == "" {
			count++
		}
	}
	return count
}

// untilSilent is how long until the last renewal is too old; 0: it is, or
// there was none, and only another renewal changes that.
func untilSilent(f registration.MemberFacts) time.Duration {
	if f.Heard == nil {
		return 0
	}
	return max(f.Heard.Add(registration.LeaseDuration).Sub(f.Now), 0)
}

// sooner is the shorter of two waits, of which the second may be none.
func sooner(a, b time.Duration) time.Duration {
	if b > 0 && b < a {
		return b
	}
	return a
}

func (r *Registrar) recall(member string) memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory[member]
}

func (r *Registrar) remember(member string, change func(*memory)) {
	if member == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memory[member]
	change(&m)
	r.memory[member] = m
}
