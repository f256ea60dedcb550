package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// maxStatusDelay is how long the status of a new export waits for the hub's
// conditions: long enough that hundreds of exports at once cost one status write
// each, not two.
const maxStatusDelay = 5 * time.Second

// Exporter pushes one member's exports to the hub.
type Exporter struct {
	// read-only after NewExporter
	cluster  fleet.ClusterName
	member   client.Client
	hub      client.Client
	hubCache cache.Cache
	now      func() time.Time

	// used by any goroutine
	done      sync.Map    // keys that were reconciled without an error, until the first push is complete
	completed atomic.Bool // the first push is complete
	pending   sync.Map    // exports without conditions from the hub, and since when
}

// NewExporter makes an Exporter of the member cluster. The clients of both
// clusters must read from caches and wait for their own writes.
func NewExporter(name fleet.ClusterName, member cluster.Cluster, hub cluster.Cluster) *Exporter {
	return &Exporter{cluster: name, member: member.GetClient(), hub: hub.GetClient(), hubCache: hub.GetCache(), now: time.Now}
}

// ReconcileExport writes the MemberExport of one service to the hub, and the
// conditions of member and hub to the ServiceExport's status. The key is the
// service's name in the member.
func (e *Exporter) ReconcileExport(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	service := fleet.ServiceName(request.NamespacedName)
	in, err := e.gather(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	offer := serviceexport.Describe(in)
	conditions, pushErr := e.push(ctx, service, offer)
	delay := e.statusDelay(request.NamespacedName, offer, conditions)
	if in.Export != nil && in.Export.DeletionTimestamp == nil && delay == 0 {
		if err := e.writeStatus(ctx, in.Export, conditions); err != nil {
			return reconcile.Result{}, err
		}
	}
	if pushErr != nil {
		return reconcile.Result{}, pushErr
	}
	e.setDone(exportKey(request.NamespacedName))
	return reconcile.Result{RequeueAfter: delay}, nil
}

// statusDelay is how long the status of a new export still waits for the hub's
// conditions. They usually come within milliseconds. Pending is written only if
// they do not.
func (e *Exporter) statusDelay(key types.NamespacedName, offer serviceexport.Offer, conditions []condition.Condition) time.Duration {
	pending := offer.Spec != nil && slices.ContainsFunc(conditions, func(c condition.Condition) bool {
		return c.Reason == string(mcsv1beta1.ServiceExportReasonPending)
	})
	if !pending {
		e.pending.Delete(key)
		return 0
	}
	since, _ := e.pending.LoadOrStore(key, e.now())
	return max(maxStatusDelay-e.now().Sub(since.(time.Time)), 0)
}

// gather reads one service in the member: its ServiceExport, its Service, and
// those slices that cannot be pushed, which the export's conditions name. All
// other slices have keys of their own.
func (e *Exporter) gather(ctx context.Context, key types.NamespacedName) (serviceexport.Input, error) {
	in := serviceexport.Input{Cluster: e.cluster}
	var err error
	if in.Export, err = apply.Found(ctx, e.member, key, &mcsv1beta1.ServiceExport{}); err != nil || in.Export == nil {
		return in, err
	}
	if in.Service, err = apply.Found(ctx, e.member, key, &corev1.Service{}); err != nil {
		return in, err
	}
	var list discoveryv1.EndpointSliceList
	if err := e.member.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{indexService: key.Name}); err != nil {
		return in, fmt.Errorf("list EndpointSlices of %s: %w", key, err)
	}
	in.Slices = slices.DeleteFunc(list.Items, func(s discoveryv1.EndpointSlice) bool { return serviceexport.Pushable(&s) })
	return in, nil
}

// push writes or deletes the MemberExport if it differs from the offer, and
// returns the conditions for the ServiceExport.
func (e *Exporter) push(ctx context.Context, service fleet.ServiceName, offer serviceexport.Offer) ([]condition.Condition, error) {
	key := e.memberExportKey(service)
	memberExport, err := apply.Found(ctx, e.hub, key, &v1alpha1.MemberExport{})
	switch {
	case err != nil:
		return nil, err
	case offer.Spec == nil && memberExport == nil:
		return offer.Conditions, nil
	case offer.Spec == nil:
		return offer.Conditions, apply.Remove(ctx, e.hub, memberExport)
	}
	conditions := slices.Clone(offer.Conditions)
	if memberExport == nil || !apiequality.Semantic.DeepEqual(memberExport.Spec, *offer.Spec) {
		applied := &v1alpha1.MemberExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec:       *offer.Spec.DeepCopy(),
		}
		if err := apply.Object(ctx, e.hub, v1alpha1.AgentFieldManager, applied); err != nil {
			return e.pushFailed(service, memberExport, conditions, err)
		}
		memberExport = applied
	}
	return append(conditions, hubConditions(service, memberExport)...), nil
}

// pushFailed adds a condition for the hub's answer. An error that the user must
// correct is not returned: the key is not tried again before something changes.
func (e *Exporter) pushFailed(service fleet.ServiceName, memberExport *v1alpha1.MemberExport, conditions []condition.Condition, err error) ([]condition.Condition, error) {
	switch answer := errors.Unwrap(err); {
	case apierrors.IsInvalid(answer), apierrors.IsBadRequest(answer):
		return append(conditions, condition.ExportRefused(service, answer.Error())), nil
	case apierrors.IsForbidden(answer), apierrors.IsNotFound(answer):
		conditions = append(conditions, condition.ExportForbidden(e.cluster, answer.Error()))
	default: // the hub cannot be reached: its last conditions stay
		conditions = append(conditions, hubConditions(service, memberExport)...)
	}
	return conditions, err
}

// hubConditions returns the conditions that the hub wrote for an export.
func hubConditions(service fleet.ServiceName, memberExport *v1alpha1.MemberExport) []condition.Condition {
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

func (e *Exporter) writeStatus(ctx context.Context, export *mcsv1beta1.ServiceExport, conditions []condition.Condition) error {
	want := condition.Stamped(export.Status.Conditions, conditions, export.Generation, e.now())
	if apply.SameConditions(export.Status.Conditions, want, condition.ExportTypes...) {
		return nil
	}
	return apply.Status(ctx, e.member, v1alpha1.AgentFieldManager, &mcsv1beta1.ServiceExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: export.Namespace, Name: export.Name},
		Status:     mcsv1beta1.ServiceExportStatus{Conditions: want},
	})
}

func (e *Exporter) memberExportKey(service fleet.ServiceName) types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.MemberNamespace(e.cluster), Name: v1alpha1.ServiceReference(service).ObjectName()}
}
