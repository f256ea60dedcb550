package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	merges   *Merges
	reserved []netip.Prefix // the hub's own ranges
	now      func() time.Time

	// used by any goroutine
	statusGate apply.BurstGate
	statusPace statusPace
	leftOuts   leftOutCounts
}

// NewMerger makes a Merger of the hub's own cluster. reserved are the hub's
// own pod and Service ranges, which no member may announce.
func NewMerger(c cluster.Cluster, merges *Merges, reserved []netip.Prefix) (*Merger, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &Merger{client: waiting, merges: merges, reserved: reserved, now: time.Now}, nil
}

// members are the members of the fleet. They are the cache's own.
type members struct {
	all    []v1alpha1.MemberCluster
	owners map[string]*v1alpha1.MemberCluster // those that are accepted, by their namespaces
}

// Reconcile merges the exports of one service and writes its FleetService.
// The key is the service's name.
func (m *Merger) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	service, err := m.merge(ctx, request)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, m.publish(ctx, service.name, service.merged.Import)
}

// ReconcileStatus writes the conditions of all MemberExports of one service,
// once its FleetService is written. The key is the service's name.
func (m *Merger) ReconcileStatus(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	name := fleet.ServiceName(request.NamespacedName)
	if delay := max(m.statusGate.StatusDelay(m.now()), m.statusPace.delay(name, m.now())); delay > 0 {
		return reconcile.Result{RequeueAfter: delay}, nil
	}
	service, err := m.merge(ctx, request)
	if err != nil {
		return reconcile.Result{}, err
	}
	have, err := m.fleetService(ctx, service.name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !published(have, service.merged.Import) { // its change brings this key back, but behind what members change meanwhile
		ready, err := m.fleetNamespaceReady(ctx)
		if err != nil || !ready {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: statusInterval}, nil
	}
	exports, err := m.exports(ctx, service.name)
	if err != nil {
		return reconcile.Result{}, err
	}
	service.admissions = registration.Admissions(service.members.all, m.reserved)
	var again time.Duration // when a member has been silent for long enough
	for _, e := range exports {
		if member := service.members.owners[e.Namespace]; member != nil {
			if _, _, after := registration.SilentSince(member, m.now()); after > 0 && (again == 0 || after < again) {
				again = after
			}
		}
		status, err := m.status(ctx, &e, service)
		if err != nil {
			return reconcile.Result{}, err
		}
		if err := m.writeStatus(ctx, &e, status); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// mergedService is the merge of the exports of one service that count.
type mergedService struct {
	name    fleet.ServiceName
	members members
	merged  serviceimport.Merged
	// admissions are those of the members, where a status is wanted.
	admissions map[fleet.ClusterName]registration.Admission
}

func (m *Merger) merge(ctx context.Context, request reconcile.Request) (mergedService, error) {
	service := mergedService{name: fleet.ServiceName(request.NamespacedName)}
	err := m.merges.Do(ctx, func(merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) (err error) {
		if service.members, err = m.members(ctx); err != nil {
			return err
		}
		list, err := m.list(ctx, service.name)
		if err != nil {
			return err
		}
		var exports []serviceimport.Export
		for i := range list {
			e := &list[i]
			if member := service.members.owners[e.Namespace]; registration.ExportCounts(member, e) {
				exports = append(exports, serviceimport.ExportOf(e, fleet.ClusterName(member.Name), registration.AcceptedAt(member)))
			}
		}
		service.merged = merge(service.name, exports)
		return nil
	})
	return service, err
}

func (m *Merger) members(ctx context.Context) (members, error) {
	var list v1alpha1.MemberClusterList
	if err := m.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return members{}, fmt.Errorf("list MemberClusters: %w", err)
	}
	var namespaces corev1.NamespaceList
	if err := m.client.List(ctx, &namespaces, client.HasLabels{v1alpha1.LabelMember}, client.UnsafeDisableDeepCopy); err != nil {
		return members{}, fmt.Errorf("list Namespaces: %w", err)
	}
	return members{list.Items, registration.Owners(list.Items, namespaces.Items)}, nil
}

// list returns the MemberExports of one service. They are the cache's own.
func (m *Merger) list(ctx context.Context, service fleet.ServiceName) ([]v1alpha1.MemberExport, error) {
	var list v1alpha1.MemberExportList
	// A list that is consistent would wait for our writes of all other services.
	err := m.client.List(ctx, &list, client.MatchingFields{indexExport: service.String()}, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list MemberExports of %s: %w", service, err)
	}
	return list.Items, nil
}

// exports returns the MemberExports of one service, by namespace, each as fresh
// as our own last write to it, and without those that are being deleted.
func (m *Merger) exports(ctx context.Context, service fleet.ServiceName) ([]v1alpha1.MemberExport, error) {
	list, err := m.list(ctx, service)
	if err != nil {
		return nil, err
	}
	var exports []v1alpha1.MemberExport
	for i := range list {
		e, err := apply.Found(ctx, m.client, client.ObjectKeyFromObject(&list[i]), &v1alpha1.MemberExport{})
		if err != nil {
			return nil, err
		}
		if e != nil && e.DeletionTimestamp == nil {
			exports = append(exports, *e)
		}
	}
	slices.SortFunc(exports, func(a, b v1alpha1.MemberExport) int { return strings.Compare(a.Namespace, b.Namespace) })
	return exports, nil
}

// fleetService reads a service's FleetService; nil: there is none.
func (m *Merger) fleetService(ctx context.Context, service fleet.ServiceName) (*v1alpha1.FleetService, error) {
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: v1alpha1.ServiceReference(service).ObjectName()}
	return apply.Found(ctx, m.client, key, &v1alpha1.FleetService{})
}

func published(have *v1alpha1.FleetService, want *v1alpha1.FleetServiceSpec) bool {
	if have == nil || want == nil {
		return have == nil && want == nil
	}
	return apiequality.Semantic.DeepEqual(have.Spec, *want)
}

// fleetNamespaceReady tells whether FleetServices can be written.
func (m *Merger) fleetNamespaceReady(ctx context.Context) (bool, error) {
	namespace, err := apply.Found(ctx, m.client, types.NamespacedName{Name: v1alpha1.FleetNamespace}, &corev1.Namespace{})
	return namespace != nil && namespace.DeletionTimestamp == nil, err
}

// publish writes or removes the FleetService where it differs.
func (m *Merger) publish(ctx context.Context, service fleet.ServiceName, spec *v1alpha1.FleetServiceSpec) error {
	have, err := m.fleetService(ctx, service)
	if err != nil || published(have, spec) {
		return err
	}
	if spec == nil {
		return apply.Remove(ctx, m.client, have)
	}
	if ready, err := m.fleetNamespaceReady(ctx); err != nil || !ready {
		return err // the namespace's arrival brings every key back
	}
	want := &v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: spec.Service.ObjectName()}, Spec: *spec.DeepCopy()}
	if err := apply.Object(ctx, m.client, v1alpha1.HubFieldManager, want); err != nil {
		return err
	}
	m.statusGate.CountWrite(m.now())
	return nil
}

// conditions returns all conditions of one export of a service.
func (m *Merger) conditions(ctx context.Context, e *v1alpha1.MemberExport, service mergedService) ([]condition.Condition, error) {
	member := service.members.owners[e.Namespace]
	if member == nil {
		return []condition.Condition{condition.ExportNotAccepted(e.Namespace)}, nil
	}
	cluster := fleet.ClusterName(member.Name)
	switch namespace := e.Spec.Service.Namespace; {
	case registration.SystemNamespace(namespace):
		return []condition.Condition{condition.ExportSystemNamespace(namespace)}, nil
	case !registration.MayExport(member, namespace):
		return []condition.Condition{condition.ExportNamespaceNotAllowed(cluster, namespace)}, nil
	}
	offered := condition.ExportOffered(len(service.members.owners) - 1)
	if since, silent, _ := registration.SilentSince(member, m.now()); silent {
		offered = condition.ExportOfferedInSilence(len(service.members.owners)-1, cluster, since)
	}
	conditions := append(slices.Clone(service.merged.Conditions[cluster]), offered)
	addresses, err := m.addresses(ctx, e)
	if err != nil {
		return nil, err
	}
	admission := service.admissions[cluster]
	leftOut, err := m.leftOut(ctx, e, admission)
	if err != nil {
		return nil, err
	}
	if leftOut > 0 {
		return append(conditions, condition.EndpointsLeftOut(cluster, leftOut, admission.Limits.EndpointsPerService, admission.Limits.Endpoints)), nil
	}
	if _, refused := admission.Admit(addresses); len(refused) > 0 {
		return append(conditions, condition.EndpointsRefused(cluster, refused)), nil
	}
	return append(conditions, condition.EndpointsAllAdmitted(cluster)), nil
}

// leftOut is how many endpoints of an export are beyond the limits of its member.
func (m *Merger) leftOut(ctx context.Context, e *v1alpha1.MemberExport, admission registration.Admission) (int, error) {
	return m.leftOuts.of(e.Namespace, fleet.ServiceName(e.Spec.Service), admission, func() ([]discoveryv1.EndpointSlice, error) {
		var list discoveryv1.EndpointSliceList
		err := m.client.List(ctx, &list, client.InNamespace(e.Namespace), client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy)
		if err != nil {
			return nil, fmt.Errorf("list EndpointSlices in %s: %w", e.Namespace, err)
		}
		return list.Items, nil
	})
}

// addresses returns the addresses in all slices of an export.
func (m *Merger) addresses(ctx context.Context, e *v1alpha1.MemberExport) ([]string, error) {
	var list discoveryv1.EndpointSliceList
	err := m.client.List(ctx, &list, client.InNamespace(e.Namespace), client.MatchingFields{indexSlice: fleet.ServiceName(e.Spec.Service).String()},
		client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy) // read-only, and this program writes no slices
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

// status returns the status of one export of a service. The record of one that does not
// count keeps its place, and no more: what it says of values is not true for ever.
func (m *Merger) status(ctx context.Context, e *v1alpha1.MemberExport, service mergedService) (v1alpha1.MemberExportStatus, error) {
	conditions, err := m.conditions(ctx, e, service)
	if err != nil {
		return v1alpha1.MemberExportStatus{}, err
	}
	status := v1alpha1.MemberExportStatus{Conditions: condition.Stamped(e.Status.Conditions, conditions, e.Generation, m.now())}
	cluster, _ := v1alpha1.MemberOfNamespace(e.Namespace)
	if seen, ok := service.merged.Seen[fleet.ClusterName(cluster)]; ok {
		status.Seen = &seen
	} else if e.Status.Seen != nil {
		status.Seen = &v1alpha1.SeenExport{ExportRecord: e.Status.Seen.ExportRecord}
	}
	return status, nil
}

func (m *Merger) writeStatus(ctx context.Context, e *v1alpha1.MemberExport, want v1alpha1.MemberExportStatus) error {
	if apply.SameConditions(e.Status.Conditions, want.Conditions) && apiequality.Semantic.DeepEqual(e.Status.Seen, want.Seen) {
		return nil
	}
	m.statusPace.written(fleet.ServiceName(e.Spec.Service), m.now())
	return apply.Status(ctx, m.client, v1alpha1.HubFieldManager, &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}, Status: want,
	})
}
