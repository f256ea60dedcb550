package hub

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// Only updates that change a MemberCluster's conditions pass.
func TestRefusedEndpointsChanged(t *testing.T) {
	export := func(generation int64, admitted metav1.ConditionStatus) *v1alpha1.MemberExport {
		e := &v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
		e.Status.Conditions = []metav1.Condition{{Type: condition.EndpointsAdmitted, Status: admitted}}
		return e
	}
	for _, update := range []struct {
		before, after *v1alpha1.MemberExport
		passes        bool
	}{
		{export(1, "True"), export(2, "True"), false},
		{&v1alpha1.MemberExport{}, export(1, "True"), false},
		{export(1, "True"), export(1, "False"), true},
		{export(1, "False"), export(2, "True"), true},
		{export(1, "False"), export(2, "False"), false},
	} {
		if got := refusedEndpointsChanged.Update(event.UpdateEvent{ObjectOld: update.before, ObjectNew: update.after}); got != update.passes {
			t.Errorf("from %v to %v: %v", update.before.Status, update.after.Status, got)
		}
	}
}

// A member that writes its Lease as fast as it can is looked at twice a second, and others
// do not wait.
func TestFloodOfLeases(t *testing.T) {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	lease := func(member string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespacePrefix + member, Name: v1alpha1.AgentLease}}
	}
	looks := make(chan string)
	go func() {
		defer close(looks)
		for {
			key, ended := queue.Get()
			if ended {
				return
			}
			looks <- key.Name
			queue.Done(key)
		}
	}()
	h, seen, end := writtenByMember(), map[string]int{}, time.After(4*memberWriteDelay)
	h.Update(t.Context(), event.UpdateEvent{ObjectOld: lease("b"), ObjectNew: lease("b")}, queue)
	began := time.Now()
	for flood := time.Tick(time.Millisecond); ; {
		select {
		case <-flood:
			h.Update(t.Context(), event.UpdateEvent{ObjectOld: lease("a"), ObjectNew: lease("a")}, queue)
			continue
		case name := <-looks:
			seen[name]++
			continue
		case <-end:
		}
		break
	}
	if most := int(time.Since(began)/memberWriteDelay) + 1; seen["a"] == 0 || seen["a"] > most || seen["b"] != 1 {
		t.Errorf("looks: %v, want at most %d at a, and one at b", seen, most)
	}
	queue.ShutDown()
	for range looks {
		continue
	}
}
