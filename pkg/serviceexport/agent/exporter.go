package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// hubAnswers is how long a new export's status waits for the hub's verdict: long
// enough that hundreds of exports at once cost one status write each, not two.
const hubAnswers = 5 * time.Second

// Exporter pushes one member's exports to the hub.
type Exporter struct {
	// read-only after NewExporter
	cluster  fleet.ClusterName
	member   client.Client
	hub      client.Client
	hubCache cache.Cache
	now      func() time.Time

	// by any goroutine: keys that were reconciled without an error, kept until
	// the first push is complete
	done      sync.Map
	completed atomic.Bool

	pending sync.Map // by any goroutine: since when exports wait for the hub's verdict
}

// NewExporter makes an Exporter of the member cluster. Both clients must read
// from caches and wait for their own writes.
func NewExporter(name fleet.ClusterName, member cluster.Cluster, hub cluster.Cluster) *Exporter {
	return &Exporter{cluster: name, member: member.GetClient(), hub: hub.GetClient(), hubCache: hub.GetCache(), now: time.Now}
}

// ReconcileExport makes the hub's MemberExport of one service what the
// member offers of it, and the ServiceExport's status what both say of it. The
// key is the service's name in the member.
func (e *Exporter) ReconcileExport(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	service := fleet.ServiceName{Namespace: request.Namespace, Name: request.Name}
	in, err := e.gather(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	offer := serviceexport.Describe(in)
	verdicts, pushErr := e.push(ctx, service, offer)
	wait := e.hubsTurn(request.NamespacedName, offer, verdicts)
	if in.Export != nil && in.Export.DeletionTimestamp == nil && wait == 0 {
		if err := e.writeStatus(ctx, in.Export, verdicts); err != nil {
			return reconcile.Result{}, err
		}
	}
	if pushErr != nil {
		return reconcile.Result{}, pushErr
	}
	e.finished(exportKey(request.NamespacedName))
	return reconcile.Result{RequeueAfter: wait}, nil
}

// hubsTurn is how long the status of a new export may wait for the hub, which
// answers within milliseconds: only where it does not is "pending" worth a
// write of its own.
func (e *Exporter) hubsTurn(key types.NamespacedName, offer serviceexport.Offer, verdicts []condition.Condition) time.Duration {
	pending := offer.Spec != nil && slices.ContainsFunc(verdicts, func(c condition.Condition) bool {
		return c.Reason == string(mcsv1beta1.ServiceExportReasonPending)
	})
	if !pending {
		e.pending.Delete(key)
		return 0
	}
	since, _ := e.pending.LoadOrStore(key, e.now())
	return max(hubAnswers-e.now().Sub(since.(time.Time)), 0)
}

// gather reads what the member has of one service. Of its slices only those
// that cannot be pushed matter to the export; the others have keys of their own.
func (e *Exporter) gather(ctx context.Context, key types.NamespacedName) (serviceexport.Input, error) {
	in := serviceexport.Input{Cluster: e.cluster}
	var err error
	if in.Export, err = apply.Found(ctx, e.member, key, &mcsv1beta1.ServiceExport{}); err != nil {
		return in, fmt.Errorf("read ServiceExport %s: %w", key, err)
	}
	if in.Service, err = apply.Found(ctx, e.member, key, &corev1.Service{}); err != nil {
		return in, fmt.Errorf("read Service %s: %w", key, err)
	}
	if in.Export == nil {
		return in, nil
	}
	var list discoveryv1.EndpointSliceList
	if err := e.member.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{indexService: key.Name}); err != nil {
		return in, fmt.Errorf("list EndpointSlices of %s: %w", key, err)
	}
	in.Slices = slices.DeleteFunc(list.Items, func(s discoveryv1.EndpointSlice) bool { return serviceexport.Pushable(&s) })
	return in, nil
}

// push writes or withdraws the MemberExport where it differs, and gives the
// conditions that the ServiceExport shall have.
func (e *Exporter) push(ctx context.Context, service fleet.ServiceName, offer serviceexport.Offer) ([]condition.Condition, error) {
	key := e.memberExportKey(service)
	memberExport, err := apply.Found(ctx, e.hub, key, &v1alpha1.MemberExport{})
	if err != nil {
		return nil, fmt.Errorf("read MemberExport %s: %w", key, err)
	}
	switch {
	case offer.Spec == nil && memberExport == nil:
		return offer.Conditions, nil
	case offer.Spec == nil:
		return offer.Conditions, wrapped(apply.Remove(ctx, e.hub, memberExport), "delete MemberExport %s", key)
	}
	verdicts := slices.Clone(offer.Conditions)
	if memberExport == nil || !apiequality.Semantic.DeepEqual(memberExport.Spec, *offer.Spec) {
		applied := &v1alpha1.MemberExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec:       *offer.Spec.DeepCopy(),
		}
		if err := apply.Object(ctx, e.hub, v1alpha1.AgentFieldManager, applied); err != nil {
			return e.refused(service, memberExport, verdicts, err)
		}
		memberExport = applied
	}
	return append(verdicts, told(service, memberExport)...), nil
}

// refused turns the hub's answer into a verdict. What the user can correct is
// not tried again before something changes; everything else is.
func (e *Exporter) refused(service fleet.ServiceName, memberExport *v1alpha1.MemberExport, verdicts []condition.Condition, err error) ([]condition.Condition, error) {
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return append(verdicts, condition.ExportRefused(service, err.Error())), nil
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		verdicts = append(verdicts, condition.ExportForbidden(e.cluster, err.Error()))
	default:
		verdicts = append(verdicts, told(service, memberExport)...) // the hub is away: its last word holds
	}
	return verdicts, fmt.Errorf("apply MemberExport of %s: %w", service, err)
}

// told are the hub's conditions of an export.
func told(service fleet.ServiceName, memberExport *v1alpha1.MemberExport) []condition.Condition {
	if memberExport == nil || len(memberExport.Status.Conditions) == 0 {
		return []condition.Condition{condition.ExportPending(service)}
	}
	var conditions []condition.Condition
	for _, c := range memberExport.Status.Conditions {
		if slices.Contains(condition.ExportTypes, c.Type) {
			conditions = append(conditions, condition.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	return conditions
}

func (e *Exporter) writeStatus(ctx context.Context, export *mcsv1beta1.ServiceExport, verdicts []condition.Condition) error {
	ours := slices.DeleteFunc(slices.Clone(export.Status.Conditions), func(c metav1.Condition) bool { return !slices.Contains(condition.ExportTypes, c.Type) })
	wanted := condition.Stamped(ours, verdicts, export.Generation, e.now())
	slices.SortFunc(ours, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	if apiequality.Semantic.DeepEqual(ours, wanted) {
		return nil
	}
	status := &mcsv1beta1.ServiceExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: export.Namespace, Name: export.Name},
		Status:     mcsv1beta1.ServiceExportStatus{Conditions: wanted},
	}
	if err := apply.Status(ctx, e.member, v1alpha1.AgentFieldManager, status); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of ServiceExport %s/%s: %w", export.Namespace, export.Name, err)
	}
	return nil
}

func (e *Exporter) memberExportKey(service fleet.ServiceName) types.NamespacedName {
	return types.NamespacedName{Namespace: serviceexport.Namespace(e.cluster), Name: serviceexport.ExportName(service)}
}
