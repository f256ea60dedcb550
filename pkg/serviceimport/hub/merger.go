package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
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
	"crossway.dev/crossway/pkg/serviceimport"
)

// Merger makes FleetServices of MemberExports.
type Merger struct {
	// read-only after NewMerger
	client   client.Client
	reserved []netip.Prefix // the hub's own ranges
	now      func() time.Time

	rush apply.Rush // by any goroutine
}

// NewMerger makes a Merger of the hub's own cluster. reserved are the hub's
// own pod and service ranges, which no member may announce.
func NewMerger(c cluster.Cluster, reserved []netip.Prefix) (*Merger, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Merger{client: waiting, reserved: reserved, now: time.Now}, nil
}

// members are the accepted members of the fleet, by name.
type members struct {
	byName     map[fleet.ClusterName]v1alpha1.MemberCluster
	admissions map[fleet.ClusterName]registration.Admission
}

// Reconcile merges the exports of one service and publishes what comes out.
// The key is the service's name.
func (m *Merger) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	now, err := m.merge(ctx, request)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, m.publish(ctx, now.service, now.merged.Import)
}

// ReconcileStatus tells the exports of one service what the fleet says of
// them, once what the fleet says is published. The key is the service's name.
func (m *Merger) ReconcileStatus(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if wait := m.rush.Wait(m.now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	now, err := m.merge(ctx, request)
	if err != nil {
		return reconcile.Result{}, err
	}
	have, err := m.fleetService(ctx, now.service)
	if err != nil || !published(have, now.merged.Import) {
		return reconcile.Result{}, err // the FleetService's change brings this key back
	}
	for _, e := range now.exports {
		verdicts, err := m.verdicts(ctx, &e, now.accepted, now.merged)
		if err != nil {
			return reconcile.Result{}, err
		}
		if err := m.writeStatus(ctx, &e, verdicts); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// merging is one service as it stands: all its exports, and what Merge made of
// those of accepted members.
type merging struct {
	service  fleet.ServiceName
	accepted members
	exports  []v1alpha1.MemberExport
	merged   serviceimport.Merged
}

func (m *Merger) merge(ctx context.Context, request reconcile.Request) (merging, error) {
	now := merging{service: fleet.ServiceName{Namespace: request.Namespace, Name: request.Name}}
	var err error
	if now.accepted, err = m.members(ctx); err != nil {
		return merging{}, err
	}
	if now.exports, err = m.exports(ctx, now.service); err != nil {
		return merging{}, err
	}
	var exports []serviceimport.Export
	for _, e := range now.exports {
		if member, ok := now.accepted.of(&e); ok {
			exports = append(exports, serviceimport.Export{
				Cluster: fleet.ClusterName(member.Name), AcceptedAt: registration.AcceptedAt(&member), Spec: e.Spec,
			})
		}
	}
	now.merged = serviceimport.Merge(exports)
	return now, nil
}

func (m *Merger) members(ctx context.Context) (members, error) {
	var list v1alpha1.MemberClusterList
	if err := m.client.List(ctx, &list); err != nil {
		return members{}, fmt.Errorf("list MemberClusters: %w", err)
	}
	accepted := members{byName: map[fleet.ClusterName]v1alpha1.MemberCluster{}, admissions: registration.Admissions(list.Items, m.reserved)}
	for _, c := range list.Items {
		if registration.Accepted(&c) {
			accepted.byName[fleet.ClusterName(c.Name)] = c
		}
	}
	return accepted, nil
}

// of is the accepted member whose namespace an export is in.
func (m members) of(e *v1alpha1.MemberExport) (v1alpha1.MemberCluster, bool) {
	name, ok := strings.CutPrefix(e.Namespace, v1alpha1.MemberNamespacePrefix)
	if !ok {
		return v1alpha1.MemberCluster{}, false
	}
	member, ok := m.byName[fleet.ClusterName(name)]
	return member, ok
}

// exports are the MemberExports of one service, by namespace, each as fresh
// as our own last write to it. One that is being deleted is withdrawn.
func (m *Merger) exports(ctx context.Context, service fleet.ServiceName) ([]v1alpha1.MemberExport, error) {
	var list v1alpha1.MemberExportList
	// only for the keys: a List would wait for the writes of all other keys
	err := m.client.List(ctx, &list, client.MatchingFields{indexExport: service.String()}, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list MemberExports of %s: %w", service, err)
	}
	var exports []v1alpha1.MemberExport
	for i := range list.Items {
		var e v1alpha1.MemberExport
		if err := m.client.Get(ctx, client.ObjectKeyFromObject(&list.Items[i]), &e); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read MemberExport %s/%s: %w", list.Items[i].Namespace, list.Items[i].Name, err)
		} else if err == nil && e.DeletionTimestamp == nil {
			exports = append(exports, e)
		}
	}
	slices.SortFunc(exports, func(a, b v1alpha1.MemberExport) int { return strings.Compare(a.Namespace, b.Namespace) })
	return exports, nil
}

// fleetService is a service's FleetService; nil: there is none.
func (m *Merger) fleetService(ctx context.Context, service fleet.ServiceName) (*v1alpha1.FleetService, error) {
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: serviceimport.Name(service)}
	have, err := apply.Found(ctx, m.client, key, &v1alpha1.FleetService{})
	if err != nil {
		return nil, fmt.Errorf("read FleetService %s: %w", key, err)
	}
	return have, nil
}

func published(have *v1alpha1.FleetService, want *v1alpha1.FleetServiceSpec) bool {
	if have == nil || want == nil {
		return have == nil && want == nil
	}
	return apiequality.Semantic.DeepEqual(have.Spec, *want)
}

// publish writes or removes the FleetService where it differs.
func (m *Merger) publish(ctx context.Context, service fleet.ServiceName, spec *v1alpha1.FleetServiceSpec) error {
	have, err := m.fleetService(ctx, service)
	if err != nil || published(have, spec) {
		return err
	}
	if spec == nil {
		if err := apply.Remove(ctx, m.client, have); err != nil {
			return fmt.Errorf("delete FleetService %s: %w", have.Name, err)
		}
		return nil
	}
	want := &v1alpha1.FleetService{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: serviceimport.Name(service)}, Spec: *spec.DeepCopy(),
	}
	if err := apply.Object(ctx, m.client, v1alpha1.HubFieldManager, want); err != nil {
		return fmt.Errorf("apply FleetService %s: %w", serviceimport.Name(service), err)
	}
	m.rush.Wrote(m.now())
	return nil
}

// verdicts are all conditions of one export.
func (m *Merger) verdicts(ctx context.Context, e *v1alpha1.MemberExport, accepted members, merged serviceimport.Merged) ([]condition.Condition, error) {
	member, ok := accepted.of(e)
	if !ok {
		return []condition.Condition{condition.ExportNotAccepted(e.Namespace)}, nil
	}
	cluster := fleet.ClusterName(member.Name)
	verdicts := slices.Clone(merged.Verdicts[cluster])
	verdicts = append(verdicts, condition.ExportOffered(len(accepted.byName)-1))
	addresses, err := m.addresses(ctx, e)
	if err != nil {
		return nil, err
	}
	if _, refused := accepted.admissions[cluster].Admit(addresses); len(refused) > 0 {
		return append(verdicts, condition.EndpointsRefused(cluster, refused)), nil
	}
	return append(verdicts, condition.EndpointsAllAdmitted(cluster)), nil
}

// addresses are those of all slices of an export.
func (m *Merger) addresses(ctx context.Context, e *v1alpha1.MemberExport) ([]string, error) {
	service := fleet.ServiceName{Namespace: e.Spec.Service.Namespace, Name: e.Spec.Service.Name}
	var list discoveryv1.EndpointSliceList
	err := m.client.List(ctx, &list, client.InNamespace(e.Namespace), client.MatchingFields{indexSlice: service.String()},
		client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy) // read-only, and nobody here writes slices
	if err != nil {
		return nil, fmt.Errorf("list EndpointSlices of MemberExport %s/%s: %w", e.Namespace, e.Name, err)
	}
	var addresses []string
	for i := range list.Items {
		for j := range list.Items[i].Endpoints {
			addresses = append(addresses, list.Items[i].Endpoints[j].Addresses...)
		}
	}
	return addresses, nil
}

func (m *Merger) writeStatus(ctx context.Context, e *v1alpha1.MemberExport, verdicts []condition.Condition) error {
	wanted := condition.Stamped(e.Status.Conditions, verdicts, e.Generation, m.now())
	have := slices.SortedFunc(slices.Values(e.Status.Conditions), func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	if apiequality.Semantic.DeepEqual(have, wanted) {
		return nil
	}
	status := &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name},
		Status:     v1alpha1.MemberExportStatus{Conditions: wanted},
	}
	if err := apply.Status(ctx, m.client, v1alpha1.HubFieldManager, status); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of MemberExport %s/%s: %w", e.Namespace, e.Name, err)
	}
	return nil
}
