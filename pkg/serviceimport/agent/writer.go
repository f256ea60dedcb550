package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

// fieldManager owns what is applied to a ServiceImport and what belongs to it.
const fieldManager = "crossway-imports"

// maxReported is how many ServiceImports are remembered to have their event.
const maxReported = 1000

// writer writes the ServiceImports of one cluster and their statuses, each only if
// it differs from what is there.
type writer struct {
	// read-only after newWriter
	local  client.Client
	events events.EventRecorder
	now    func() time.Time

	// used by any goroutine
	reported   *lru.Cache // reasons and UIDs of ServiceImports that have their event
	statusGate apply.BurstGate
}

func newWriter(local cluster.Cluster) (*writer, error) {
	waiting, err := apply.ClientOf(local)
	return &writer{local: waiting, events: local.GetEventRecorder("crossway-imports"), now: time.Now, reported: lru.New(maxReported)}, err
}

// write applies an import without its status if it differs from the stored one,
// and returns it as it is stored. have is nil if there is none.
func (w *writer) write(ctx context.Context, have *mcsv1beta1.ServiceImport, want mcsv1beta1.ServiceImport) (*mcsv1beta1.ServiceImport, error) {
	if have != nil && sameImport(have, &want) {
		return have, nil
	}
	if err := apply.Object(ctx, w.local, fieldManager, &want); err != nil {
		return nil, err
	}
	w.statusGate.CountWrite(w.now())
	return &want, nil
}

// writeStatus applies the status of an import that is stored as wanted. During a
// burst of writes it asks to be called again.
func (w *writer) writeStatus(ctx context.Context, have *mcsv1beta1.ServiceImport, want serviceimport.Projection) (reconcile.Result, error) {
	if delay := w.statusGate.StatusDelay(w.now()); delay > 0 {
		return reconcile.Result{RequeueAfter: delay}, nil
	}
	if !apiequality.Semantic.DeepEqual(have.Spec, want.Import.Spec) { // labels are not compared: others may add some
		return reconcile.Result{}, nil // its change brings this key back
	}
	status := &want.Import
	status.Status.Conditions = condition.Stamped(have.Status.Conditions, want.Conditions, have.Generation, w.now())
	if sameStatus(have.Status, status.Status) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, apply.Status(ctx, w.local, fieldManager, status)
}

// reportNotOurs creates one event on a ServiceImport that somebody else made under
// the name of an import of the fleet.
func (w *writer) reportNotOurs(have *mcsv1beta1.ServiceImport) {
	w.reportOnce(have, "NotCrossways", condition.ImportNotOurs(fleet.ServiceName(client.ObjectKeyFromObject(have))))
}

// reportOnce creates one event on a ServiceImport while this process runs, unless there
// were many others since.
func (w *writer) reportOnce(have *mcsv1beta1.ServiceImport, reason, message string) {
	key := reason + string(have.UID)
	if _, reported := w.reported.Get(key); !reported {
		w.reported.Add(key, nil)
		w.events.Eventf(have, nil, corev1.EventTypeWarning, reason, "Import", "%s", message)
	}
}

func sameImport(have, want *mcsv1beta1.ServiceImport) bool {
	return apiequality.Semantic.DeepEqual(have.Spec, want.Spec) &&
		apiequality.Semantic.DeepEqual(have.Labels, want.Labels) &&
		apiequality.Semantic.DeepEqual(have.Annotations, want.Annotations)
}

// sameStatus compares the parts of a status that Crossway writes.
func sameStatus(have, want mcsv1beta1.ServiceImportStatus) bool {
	byName := func(a, b mcsv1beta1.ClusterStatus) int { return strings.Compare(a.Cluster, b.Cluster) }
	return have.EndpointSliceObjects == want.EndpointSliceObjects &&
		apply.SameConditions(have.Conditions, want.Conditions, string(mcsv1beta1.ServiceImportConditionReady)) &&
		apiequality.Semantic.DeepEqual(slices.SortedFunc(slices.Values(have.Clusters), byName), slices.SortedFunc(slices.Values(want.Clusters), byName))
}
