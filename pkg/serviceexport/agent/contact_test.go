package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// The exports of a cluster that is cut off say since when, once, and no more when the hub is
// reached again. What the hub said last stays.
func TestExportsWithoutTheHub(t *testing.T) {
	f := newFixture(t, "alone")
	ns := f.namespace("alone-shop")
	f.service(ns, "web")
	t.Cleanup(func() { // for other tests on this API server
		f.Must(f.admin.Delete(context.Background(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}))
	})
	f.reconcile(ns, "web", "web-1")
	f.setHubConditions(ns, "web", metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Exported", Message: "offered to 2 other clusters", LastTransitionTime: metav1.NewTime(f.clock)})
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	f.Must(f.exporter.contact.notify(t.Context(), queue))
	said := func(queued int) string {
		t.Helper()
		if queue.Len() != queued {
			t.Errorf("%d exports are reconciled, want %d", queue.Len(), queued)
		}
		for range queued {
			request, _ := queue.Get()
			queue.Done(request)
		}
		f.reconcile(ns, "web")
		var export mcsv1beta1.ServiceExport
		f.Must(f.admin.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
		ready := meta.FindStatusCondition(export.Status.Conditions, "Ready")
		if ready == nil || ready.Status != metav1.ConditionTrue || ready.Reason != "Exported" {
			t.Fatalf("Ready is %+v", ready)
		}
		return ready.Message
	}

	f.beat()
	if got := said(0); got != "offered to 2 other clusters" {
		t.Errorf("with the hub: %s", got)
	}
	f.clock = f.clock.Add(10 * time.Minute)
	f.writes.setCut(true)
	f.exporter.losesContact()
	if got := said(1); !strings.HasPrefix(got, "offered to 2 other clusters, when the hub was reached last, at 2026-01-01T00:00:00Z") {
		t.Errorf("without the hub: %s", got)
	}
	f.inMember.reset()
	f.clock = f.clock.Add(time.Hour)
	said(0)
	if writes := f.inMember.list(); len(writes) > 0 {
		t.Errorf("an hour later the member got %v", writes)
	}
	f.writes.setCut(false)
	f.beat()
	if got := said(1); got != "offered to 2 other clusters" {
		t.Errorf("with the hub again: %s", got)
	}
}
