package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
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
	// Evidence is what shows beside its Lease whether a member lives. Nil: nothing does. It
	// is set before SetupWithManager.
	Evidence func(fleet.ClusterName) registration.Evidence

	wakes chan event.GenericEvent
	// read-only after NewRegistrar
	client   client.Client
	reserved []netip.Prefix
	now      func() time.Time

	// statusAt is when the status of each MemberCluster was last written. Only
	// Reconcile uses it, which runs for one key at a time.
	statusAt map[string]time.Time
	// heard is the last renewal of each member's Lease. As statusAt.
	heard map[string]renewal
}

// renewal is what an agent's Lease says and when the hub saw it.
type renewal struct {
	looked   time.Time // when the hub last looked
	said, at time.Time
	clocks   registration.ClockHistory
	refusal  string // annotation of a refused cluster, and when the hub saw it
	refused  time.Time
}

// NewRegistrar makes a Registrar of the hub's own cluster. reserved are the
// hub's own pod and Service ranges, which no member may announce.
func NewRegistrar(c cluster.Cluster, reserved []netip.Prefix) (*Registrar, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Registrar{client: waiting, wakes: make(chan event.GenericEvent, maxWakes), reserved: reserved, now: time.Now, statusAt: map[string]time.Time{}, heard: map[string]renewal{}}, nil
}

// Reconcile writes one MemberCluster's objects and status. The key is its name.
func (r *Registrar) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if _, err := r.ensureNamespace(ctx, registration.FleetNamespace()); err != nil {
		return reconcile.Result{}, err
	}
	member, err := apply.Found(ctx, r.client, types.NamespacedName{Name: request.Name}, &v1alpha1.MemberCluster{})
	if err != nil {
		return reconcile.Result{}, err
	}
	if member == nil {
		return reconcile.Result{}, r.removeMember(ctx, request.Name)
	}
	state := registration.NamespaceOurs
	var users []string
	if c := registration.InForce(member); c != nil {
		users = append(users, registration.CredentialUser(fleet.ClusterName(member.Name), c.Kind, c.ID))
	}
	if objects := registration.Objects(fleet.ClusterName(member.Name), registration.LimitsOf(member), users...); registration.Accepted(member) {
		state, err = r.ensureObjects(ctx, objects)
	} else {
		err = r.removeBinding(ctx, &objects.Binding)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	return r.report(ctx, member, state)
}

// ensureObjects makes a namespace that does not exist, and in it the quota, the
// Role and the binding. An existing namespace is used as it is, if it has the label of a
// member's.
func (r *Registrar) ensureObjects(ctx context.Context, want registration.MemberObjects) (registration.NamespaceState, error) {
	state, err := r.ensureNamespace(ctx, &want.Namespace)
	if err != nil || state != registration.NamespaceOurs {
		return state, err
	}
	if err := r.ensureQuota(ctx, want.Quota); err != nil { // before anybody may write there
		return registration.NamespaceOurs, err
	}
	if err := r.ensureRole(ctx, &want.Role); err != nil {
		return registration.NamespaceOurs, err
	}
	if len(want.Binding.Subjects) == 0 { // nobody has a credential
		return registration.NamespaceOurs, r.removeBinding(ctx, &want.Binding)
	}
	return registration.NamespaceOurs, r.ensureBinding(ctx, &want.Binding)
}

func (r *Registrar) ensureNamespace(ctx context.Context, want *corev1.Namespace) (registration.NamespaceState, error) {
	have, err := apply.Found(ctx, r.client, client.ObjectKeyFromObject(want), &corev1.Namespace{})
	switch {
	case err != nil:
		return registration.NamespaceOurs, err
	case have == nil:
		if err := r.client.Create(ctx, want); err != nil {
			return registration.NamespaceOurs, fmt.Errorf("create Namespace %s: %w", want.Name, err)
		}
	case have.DeletionTimestamp != nil: // its end brings a key back
		return registration.NamespaceTerminating, nil
	case !hasLabels(have, want.Labels):
		return registration.NamespaceTaken, nil
	}
	return registration.NamespaceOurs, nil
}

func (r *Registrar) ensureQuota(ctx context.Context, want *corev1.ResourceQuota) error {
	if want == nil {
		return nil
	}
	have, err := apply.Found(ctx, r.client, client.ObjectKeyFromObject(want), &corev1.ResourceQuota{})
	if err != nil {
		return err
	}
	if have == nil || !hasLabels(have, want.Labels) || !apiequality.Semantic.DeepEqual(have.Spec, want.Spec) {
		if err := apply.Object(ctx, r.client, v1alpha1.HubFieldManager, want); err != nil {
			return err
		}
		have = want
	}
	if len(uncounted(have)) == 0 {
		return nil
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error { return r.count(ctx, client.ObjectKeyFromObject(want)) })
}

// count counts the objects of a quota that nobody has counted. An API server refuses
// objects whose kind is not counted yet ("status unknown for quota"), and the quota
// controller of its cluster may be late: it looks for new kinds every 30 s and counts
// them every 5 min, and none while it waits for another kind. It keeps a count that it
// finds.
func (r *Registrar) count(ctx context.Context, key types.NamespacedName) error {
	var quota corev1.ResourceQuota
	if err := r.client.Get(ctx, key, &quota); err != nil {
		return err
	}
	missing := uncounted(&quota)
	if len(missing) == 0 {
		return nil
	}
	quota.Status.Hard = quota.Spec.Hard
	if quota.Status.Used == nil {
		quota.Status.Used = corev1.ResourceList{}
	}
	for _, name := range missing {
		list := countedLists[name].DeepCopyObject().(client.ObjectList)
		if err := r.client.List(ctx, list, client.InNamespace(key.Namespace), client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list %T in %s: %w", list, key.Namespace, err)
		}
		quota.Status.Used[name] = *resource.NewQuantity(int64(meta.LenList(list)), resource.DecimalSI)
	}
	return r.client.Status().Update(ctx, &quota)
}

// countedLists are what the names in a member's quota count.
var countedLists = map[corev1.ResourceName]client.ObjectList{
	registration.CountOfExports: &v1alpha1.MemberExportList{},
	registration.CountOfSlices:  &discoveryv1.EndpointSliceList{},
	registration.CountOfLeases:  &coordinationv1.LeaseList{},
}

// uncounted are the names in a quota that nobody has counted.
func uncounted(quota *corev1.ResourceQuota) (names []corev1.ResourceName) {
	for name := range quota.Spec.Hard {
		if _, counted := quota.Status.Used[name]; !counted && countedLists[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

func (r *Registrar) ensureRole(ctx context.Context, want *rbacv1.Role) error {
	have, err := apply.Found(ctx, r.client, client.ObjectKeyFromObject(want), &rbacv1.Role{})
	if err != nil || have != nil && hasLabels(have, want.Labels) && apiequality.Semantic.DeepEqual(have.Rules, want.Rules) {
		return err
	}
	return apply.Object(ctx, r.client, v1alpha1.HubFieldManager, want)
}

// ensureBinding writes a binding. The Role that a binding refers to cannot be
// changed, so a binding to another Role is replaced.
func (r *Registrar) ensureBinding(ctx context.Context, want *rbacv1.RoleBinding) error {
	have, err := apply.Found(ctx, r.client, client.ObjectKeyFromObject(want), &rbacv1.RoleBinding{})
	switch {
	case err != nil:
		return err
	case have == nil:
	case have.RoleRef != want.RoleRef:
		if err := apply.Remove(ctx, r.client, have); err != nil {
			return err
		}
	case hasLabels(have, want.Labels) && apiequality.Semantic.DeepEqual(have.Subjects, want.Subjects):
		return nil
	}
	return apply.Object(ctx, r.client, v1alpha1.HubFieldManager, want)
}

// hasLabels tells whether an object has all these labels. Others may add more.
func hasLabels(have client.Object, want map[string]string) bool {
	return labels.SelectorFromSet(want).Matches(labels.Set(have.GetLabels()))
}

// removeBinding takes away the access of a member that is not accepted.
func (r *Registrar) removeBinding(ctx context.Context, binding *rbacv1.RoleBinding) error {
	have, err := apply.Found(ctx, r.client, client.ObjectKeyFromObject(binding), &rbacv1.RoleBinding{})
	if err != nil || have == nil {
		return err
	}
	return apply.Remove(ctx, r.client, have)
}

// removeMember deletes the namespace of a MemberCluster that was deleted, if it
// was made for that MemberCluster.
func (r *Registrar) removeMember(ctx context.Context, name string) error {
	delete(r.statusAt, name)
	delete(r.heard, name)
	namespace, err := apply.Found(ctx, r.client, types.NamespacedName{Name: v1alpha1.MemberNamespace(name)}, &corev1.Namespace{})
	if err != nil || namespace == nil || namespace.Labels[v1alpha1.LabelMember] != name || namespace.DeletionTimestamp != nil {
		return err
	}
	return apply.Remove(ctx, r.client, namespace)
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
	due := r.statusAt[member.Name].Add(registration.StatusInterval)
	if wait := r.statusAt[member.Name].Add(wordsInterval).Sub(facts.Now); wait > 0 && onlyWords(member.Status.Conditions, wanted.Conditions) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if apply.SameConditions(member.Status.Conditions, wanted.Conditions) && facts.Now.Before(due) {
		return reconcile.Result{RequeueAfter: sooner(sooner(due.Sub(facts.Now), untilSilent(facts)), untilDrained(facts))}, nil
	}
	wanted.Exports = int32(len(exports))
	if wanted.Endpoints, err = r.endpoints(ctx, facts.Admission, exports); err != nil {
		return reconcile.Result{}, err
	}
	if facts.LastRenewal != nil {
		wanted.LastHeardTime = ptr.To(metav1.NewTime(facts.LastRenewal.UTC().Truncate(time.Second)))
	}
	stored := member.Status
	stored.Credential, stored.JoinRequest = nil, nil // the Joiner's
	if !apiequality.Semantic.DeepEqual(stored, wanted) {
		status := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member.Name}, Status: wanted}
		if err := apply.Status(ctx, r.client, v1alpha1.HubFieldManager, status); err != nil {
			return reconcile.Result{}, err
		}
	}
	r.statusAt[member.Name] = facts.Now
	return reconcile.Result{RequeueAfter: sooner(sooner(registration.StatusInterval, untilSilent(facts)), untilDrained(facts))}, nil
}

// facts reads what the status depends on, and the member's exports.
func (r *Registrar) facts(ctx context.Context, member *v1alpha1.MemberCluster, state registration.NamespaceState) (registration.MemberFacts, []v1alpha1.MemberExport, error) {
	name := fleet.ClusterName(member.Name)
	facts := registration.MemberFacts{Member: *member, Namespace: state, Now: r.now()}
	var all v1alpha1.MemberClusterList
	if err := r.client.List(ctx, &all, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy); err != nil {
		return facts, nil, fmt.Errorf("list MemberClusters: %w", err)
	}
	facts.Admission = registration.Admissions(all.Items, r.reserved)[name]
	quota, err := apply.Found(ctx, r.client, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(name), Name: registration.RoleName}, &corev1.ResourceQuota{})
	if err != nil {
		return facts, nil, err
	}
	if quota != nil {
		facts.Full = registration.Full(quota)
	}
	lease, err := apply.Found(ctx, r.client, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(name), Name: v1alpha1.AgentLease}, &coordinationv1.Lease{})
	if err != nil {
		return facts, nil, err
	}
	if lease != nil {
		r.hears(&facts, lease)
	}
	if r.Evidence != nil {
		facts.Evidence = r.Evidence(name)
	}
	var exports v1alpha1.MemberExportList
	if err := r.client.List(ctx, &exports, client.InNamespace(v1alpha1.MemberNamespace(name)), client.UnsafeDisableDeepCopy); err != nil {
		return facts, nil, fmt.Errorf("list MemberExports of %s: %w", name, err)
	}
	facts.Exports = len(exports.Items)
	for i := range exports.Items {
		e := &exports.Items[i]
		switch namespace := e.Spec.Service.Namespace; {
		case registration.MayExport(member, namespace):
			if hasRefusedEndpoints(e) {
				facts.Refused = append(facts.Refused, fleet.ServiceName(e.Spec.Service).String())
			}
		case !registration.SystemNamespace(namespace): // no line of the MemberCluster allows those
			facts.NotAllowed = append(facts.NotAllowed, namespace)
		}
	}
	slices.Sort(facts.Refused)
	slices.Sort(facts.NotAllowed)
	facts.NotAllowed = slices.Compact(facts.NotAllowed)
	return facts, exports.Items, nil
}

// hears takes note of the agent's Lease. What counts is when the hub sees it change: the
// times in a Lease are the member's word, and a date in the future would be a sign of
// life for ever. Of what was there when the hub started, or began to lead again, nobody
// knows more than the Lease and the status say.
func (r *Registrar) hears(facts *registration.MemberFacts, lease *coordinationv1.Lease) {
	last, known := r.heard[facts.Member.Name]
	if facts.Now.Sub(last.looked) >= 2*registration.StatusInterval { // another replica led meanwhile
		last, known = renewal{}, false
	}
	last.looked = facts.Now
	if renewed := lease.Spec.RenewTime; renewed != nil {
		switch {
		case !known:
			last.said, last.at = renewed.Time, renewed.Time
			if status := facts.Member.Status.LastHeardTime; status != nil && status.After(last.at) {
				last.at = status.Time
			}
		case !last.said.Equal(renewed.Time):
			last.said, last.at = renewed.Time, facts.Now
			last.clocks = last.clocks.With(registration.Clocks{Member: renewed.Time, Hub: facts.Now})
		}
		last.at = earlier(last.at, facts.Now)
		facts.LastRenewal = &last.at
	}
	if said := lease.Annotations[v1alpha1.AnnotationRefusedClusterUID]; said != last.refusal {
		last.refusal, last.refused = said, facts.Now
		if refusal, ok := registration.ParseRefusal(said); ok && !known {
			last.refused = earlier(refusal.Said, facts.Now)
		}
	}
	r.heard[facts.Member.Name] = last
	facts.Lease, facts.Clocks, facts.Refusal = lease.Annotations, last.clocks, &last.refused
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
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
	admitted := admission.Endpoints(registration.ReadAllAnnounced(list.Items))
	var count int32
	for i := range list.Items {
		if _, service, ok := registration.SourceOf(&list.Items[i]); ok && exported[service] {
			count += readyEndpoints(&list.Items[i], admitted[service])
		}
	}
	return count, nil
}

func readyEndpoints(s *discoveryv1.EndpointSlice, admitted registration.Endpoints) int32 {
	var count int32
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if address, ok := registration.AddressOf(e); ok && ptr.Deref(e.Conditions.Ready, true) && admitted.Has(address) {
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

// untilDrained is the time until a drain comes to its end. 0: none is under way.
func untilDrained(f registration.MemberFacts) time.Duration {
	if d := f.Member.Spec.Drain; registration.DrainChanges(d, f.Now) {
		return d.EndTime.Sub(f.Now)
	}
	return 0
}

// sooner is the shorter of two delays; a second delay of 0 does not count.
func sooner(a, b time.Duration) time.Duration {
	if b > 0 && b < a {
		return b
	}
	return a
}
