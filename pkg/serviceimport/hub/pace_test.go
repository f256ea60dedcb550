package hub

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

func exportIn(namespace, service string) *v1alpha1.MemberExport {
	return &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + ".shop"},
		Spec:       v1alpha1.MemberExportSpec{Service: v1alpha1.ServiceReference{Namespace: "shop", Name: service}},
	}
}

// A member that changes all it has, again and again, is handled at its own rate, and
// the change of another member is handled before what is left of it.
func TestFloodOfOneMember(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	pace := newMemberPace(func() time.Time { return now })
	queue := priorityqueue.New[reconcile.Request]("test")
	defer queue.ShutDown()
	handler := pace.handler(requestsOfExport)
	for i := range 300 {
		handler.Update(t.Context(), event.UpdateEvent{ObjectNew: exportIn("member-loud", fmt.Sprint("s", i))}, queue)
	}
	handler.Create(t.Context(), event.CreateEvent{Object: exportIn("member-quiet", "mine")}, queue)
	mine := requestFor(fleet.ServiceName{Namespace: "shop", Name: "mine"})
	var before int
	for {
		key, _, _ := queue.GetWithPriority()
		queue.Done(key)
		if key == mine {
			break
		}
		before++
	}
	if before > promptBurst {
		t.Errorf("%d services of the loud member before that of the quiet one", before)
	}
}

func TestMemberPace(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	pace := newMemberPace(func() time.Time { return now })
	key := func(i int) reconcile.Request {
		return requestFor(fleet.ServiceName{Namespace: "shop", Name: fmt.Sprint("s", i)})
	}
	var delays []time.Duration
	for i := range changeBurst + 2*changeRate {
		after, priority := pace.place("member-loud", key(i))
		if (priority == 0) != (i < promptBurst) {
			t.Fatalf("change %d has priority %d", i, priority)
		}
		delays = append(delays, after)
	}
	if delays[changeBurst-1] != 0 || delays[changeBurst] == 0 || delays[len(delays)-1] != 2*time.Second {
		t.Errorf("delays %v", delays[changeBurst-1:])
	}
	last := key(changeBurst + 2*changeRate - 1)
	for range 10_000 { // the same service waits once, however often it changes
		if after, _ := pace.place("member-loud", last); after != 2*time.Second {
			t.Fatalf("the service that waits comes after %s", after)
		}
	}
	if after, priority := pace.place("member-quiet", last); after != 0 || priority != 0 {
		t.Errorf("another member's change of the same service comes after %s with priority %d", after, priority)
	}
	now = now.Add(3 * time.Second)
	if after, _ := pace.place("member-loud", last); after != 0 {
		t.Errorf("after the flood the member waits %s", after)
	}
}

// However long a member floods, its changes are a minute behind at most.
func TestDebtIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	pace := newMemberPace(func() time.Time { return now })
	for i := range 100_000 {
		now = now.Add(10 * time.Millisecond)
		if after, _ := pace.place("member-loud", requestFor(fleet.ServiceName{Namespace: "shop", Name: fmt.Sprint("s", i)})); after > maxDelay {
			t.Fatalf("change %d comes after %s", i, after)
		}
	}
	if waiting := len(pace.members["member-loud"].due); waiting > 20_000 { // two minutes of them
		t.Errorf("%d services wait", waiting)
	}
	now = now.Add(2 * maxDelay)
	if after, _ := pace.place("member-loud", requestFor(fleet.ServiceName{Namespace: "shop", Name: "last"})); after != 0 {
		t.Errorf("long after the flood a change comes after %s", after)
	}
}

// Services of ever new names do not fill the memory.
func TestServicesThatNoLongerWaitAreForgotten(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	pace := newMemberPace(func() time.Time { return now })
	for i := range 10 * changeBurst {
		pace.place("member-loud", requestFor(fleet.ServiceName{Namespace: "shop", Name: fmt.Sprint("s", i)}))
	}
	now = now.Add(time.Hour)
	pace.place("member-loud", requestFor(fleet.ServiceName{Namespace: "shop", Name: "next"}))
	if waiting := len(pace.members["member-loud"].due); waiting != 0 {
		t.Errorf("%d services wait", waiting)
	}
}

// What exists at the start is no change: a hub that restarts delays nothing.
func TestNothingIsDelayedAtTheStart(t *testing.T) {
	pace := newMemberPace(func() time.Time { return time.Unix(1_800_000_000, 0) })
	queue := priorityqueue.New[reconcile.Request]("test")
	defer queue.ShutDown()
	for i := range 2 * changeBurst {
		pace.handler(requestsOfExport).Create(context.Background(),
			event.CreateEvent{Object: exportIn("member-large", fmt.Sprint("s", i)), IsInInitialList: true}, queue)
	}
	var got []string
	for range 2 * changeBurst {
		key, _, _ := queue.GetWithPriority()
		queue.Done(key)
		got = append(got, key.Name)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 2*changeBurst {
		t.Errorf("%d services", len(got))
	}
}
