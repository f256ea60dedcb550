package agent

import (
	"context"
	"errors"
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
	"k8s.io/apimachinery/pkg/api/meta"
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
	cluster   fleet.ClusterName
	member    client.Client
	hub       client.Client
	hubReader client.Reader // without a cache
	hubCache  cache.Cache
	now       func() time.Time

	// used by any goroutine
	done      sync.Map    // keys that were reconciled without an error, until the first push is complete
	completed atomic.Bool // the first push is complete
	pending   sync.Map    // exports without conditions from the hub, and since when

	withdrawals withdrawals
	refusals    refusals
	contact     contact
}

// NewExporter makes an Exporter of the member cluster. The clients of both
// clusters must read from caches and wait for their own writes.
func NewExporter(name fleet.ClusterName, member cluster.Cluster, hub cluster.Cluster) *Exporter {
	return &Exporter{cluster: name, member: member.GetClient(), hub: hub.GetClient(), hubReader: hub.GetAPIReader(), hubCache: hub.GetCache(), now: time.Now}
}

// ReconcileExport writes the MemberExport of one service to the hub, and the
// conditions of member and hub to the ServiceExport's status. The key is the
// service's name in the member.
func (e *Exporter) ReconcileExport(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := e.beginWithdrawals(ctx); err != nil {
		return reconcile.Result{}, err
	}
	service := fleet.ServiceName(request.NamespacedName)
	in, err := e.gather(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	offer := serviceexport.Describe(in)
	kept, err := e.keeps(ctx, service)
	if err != nil {
		return reconcile.Result{}, err
	}
	var hub answer
	var pushErr error
	if offer.Spec != nil || !kept {
		hub, pushErr = e.push(ctx, service, offer)
	}
	delay := e.statusDelay(request.NamespacedName, hub)
	if in.Export != nil && in.Export.DeletionTimestamp == nil && delay == 0 {
		if err := e.writeStatus(ctx, in.Export, offer.Conditions, e.contact.mark(hub)); err != nil {
			return reconcile.Result{}, err
		}
	}
	if pushErr != nil {
		return reconcile.Result{}, pushErr
	}
	e.setDone(exportKey(request.NamespacedName))
	if kept && delay == 0 {
		delay = keptInterval
	}
	return reconcile.Result{RequeueAfter: delay}, nil
}

// answer is what the hub says of an export.
type answer struct {
	conditions []condition.Condition
	outdated   bool // it is about an earlier version of the export, or there is none yet
}

// has tells whether the hub itself wrote a condition of this type.
func (a answer) has(conditionType string) bool {
	return slices.ContainsFunc(a.conditions, func(c condition.Condition) bool {
		return c.Type == conditionType && c.Reason != string(mcsv1beta1.ServiceExportReasonPending)
	})
}

// statusDelay is how long a ServiceExport's status still waits for the hub's answer
// to what was pushed. It usually comes within milliseconds. Only if it does not, the
// status is written without it.
func (e *Exporter) statusDelay(key types.NamespacedName, a answer) time.Duration {
	if !a.outdated {
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
	in.Refused = e.refusals.of(fleet.ServiceName(key))
	return in, nil
}

// push writes or deletes the MemberExport if it differs from the offer, and returns
// the hub's answer.
func (e *Exporter) push(ctx context.Context, service fleet.ServiceName, offer serviceexport.Offer) (answer, error) {
	key := e.memberExportKey(service)
	memberExport, err := apply.Found(ctx, e.hub, key, &v1alpha1.MemberExport{})
	switch {
	case err != nil:
		return answer{}, err
	case offer.Spec == nil && memberExport == nil:
		return answer{}, nil
	case offer.Spec == nil:
		return answer{}, apply.Remove(ctx, e.hub, memberExport)
	}
	if memberExport == nil || !apiequality.Semantic.DeepEqual(memberExport.Spec, *offer.Spec) {
		applied := &v1alpha1.MemberExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec:       *offer.Spec.DeepCopy(),
		}
		if err := apply.Object(ctx, e.hub, v1alpha1.AgentFieldManager, applied); err != nil {
			return e.pushFailed(service, memberExport, err)
		}
		memberExport = applied
	}
	return answerOf(service, memberExport), nil
}

// pushFailed returns a condition for the hub's refusal. An error that the user must
// correct is not returned: the key is not tried again before something changes.
func (e *Exporter) pushFailed(service fleet.ServiceName, memberExport *v1alpha1.MemberExport, err error) (answer, error) {
	switch refusal := errors.Unwrap(err); {
	case apierrors.IsInvalid(refusal), apierrors.IsBadRequest(refusal):
		return answer{conditions: []condition.Condition{condition.ExportRefused(service, refusal.Error())}}, nil
	case isQuotaExceeded(refusal):
		return answer{conditions: []condition.Condition{condition.ExportLimitReached(e.cluster, refusal.Error())}}, err
	case apierrors.IsForbidden(refusal) && strings.Contains(refusal.Error(), "status unknown for quota"): // the same plugin's: the next try may do
	case apierrors.IsForbidden(refusal), apierrors.IsNotFound(refusal):
		return answer{conditions: []condition.Condition{condition.ExportForbidden(e.cluster, refusal.Error())}}, err
	}
	last := answerOf(service, memberExport) // the hub has not decided: its last conditions stay
	last.outdated = true
	return last, err
}

// answerOf returns the conditions that the hub wrote for an export. What the hub saw
// of it is their observedGeneration.
func answerOf(service fleet.ServiceName, memberExport *v1alpha1.MemberExport) answer {
	if memberExport == nil || len(memberExport.Status.Conditions) == 0 {
		return answer{conditions: []condition.Condition{condition.ExportPending(service)}, outdated: true}
	}
	var a answer
	for _, c := range memberExport.Status.Conditions {
		if slices.Contains(condition.ExportTypes, c.Type) {
			a.conditions = append(a.conditions, condition.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
			a.outdated = a.outdated || c.ObservedGeneration < memberExport.Generation
		}
	}
	return a
}

// writeStatus writes the conditions of the member and of the hub where they differ.
// Those of an outdated answer keep the generation that they are about.
func (e *Exporter) writeStatus(ctx context.Context, export *mcsv1beta1.ServiceExport, own []condition.Condition, hub answer) error {
	stored := export.Status.Conditions
	want := condition.Stamped(stored, slices.Concat(own, hub.conditions), export.Generation, e.now())
	for i := range want {
		old := meta.FindStatusCondition(stored, want[i].Type)
		if old != nil && hub.outdated && hub.has(want[i].Type) {
			want[i].ObservedGeneration = old.ObservedGeneration
		}
	}
	if apply.SameConditions(stored, want, condition.ExportTypes...) {
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
