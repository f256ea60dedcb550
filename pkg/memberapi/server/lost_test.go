package server

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
)

// What the hub's API server lacks since its etcd was restored was not deleted: watches
// end and their readers list again, who keep for a minute what a list lacks. What
// somebody deletes is told as deleted, also while other services are lost.
func TestLostObjectsAreNotDeleted(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.export("shop", "web", "b")
	f.export("shop", "cart", "b")
	f.export("shop", "search", "b")
	f.push("b", "shop", "web", "10.98.0.1")
	f.push("b", "shop", "cart", "10.98.0.2")
	f.pass()
	imports, slices := f.openWatch(userOf("a"), importsPath), f.openWatch(userOf("a"), slicesPath)
	imports.expect("ADDED cart", "ADDED search", "ADDED web")
	slices.expect("ADDED cart", "ADDED web")

	f.withdraw("shop", "cart")
	f.sliceHandler().OnDelete(sliceOf("b", "shop", "cart"))
	f.pass()
	imports.expect("DELETED cart")
	slices.expect("DELETED cart")

	lost := sliceOf("b", "shop", "web")
	f.sliceHandler().OnDelete(toolscache.DeletedFinalStateUnknown{Key: lost.Namespace + "/" + lost.Name, Obj: lost})
	f.pass()
	slices.expect("ERROR 410")
	f.withdraw("shop", "search")
	f.pass()
	imports.expect("DELETED search")
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")

	f.export("shop", "web", "b")
	f.pass()
	imports = f.openWatch(userOf("a"), importsPath)
	imports.expect("ADDED web")
	export := &v1alpha1.MemberExport{Spec: v1alpha1.MemberExportSpec{Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}}}
	f.noteLost(toolscache.DeletedFinalStateUnknown{Key: "member-b/web.shop", Obj: export})
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")

	f.export("shop", "web", "b")
	f.pass()
	imports = f.openWatch(userOf("a"), importsPath)
	imports.expect("ADDED web")
	f.clusterHandler().OnDelete(toolscache.DeletedFinalStateUnknown{Key: "c", Obj: &v1alpha1.MemberCluster{}})
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")
}

// A member whose watch moves to another replica never reads an older state there than the one that it has: its watch is
// answered when that replica has seen as much, and then it lists. What an API server has forgotten is waited for in vain.
func TestAnotherReplicaIsBehind(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	first, second := newFixture(t), newFixtureWith(t, Config{Clock: clock})
	push := func(f *fixture, version, address string) {
		slice := sliceOf("b", "shop", "web", address)
		slice.ResourceVersion = version
		f.sliceHandler().OnAdd(slice, false)
		f.pass()
	}
	for _, f := range []*fixture{first, second} {
		f.member("a", "shop")
		f.member("b", "shop")
		f.export("shop", "web", "b")
		push(f, "10", "10.98.0.1")
	}
	push(first, "20", "10.98.0.2")
	list := func(f *fixture) (list discoveryv1.EndpointSliceList) {
		f.Must(json.NewDecoder(f.request(t.Context(), userOf("a"), slicesPath).Body).Decode(&list))
		return list
	}
	watchFrom := func(version string) string { return slicesPath + "?watch=true&resourceVersion=" + version }
	if s := second.status(userOf("a"), watchFrom(list(second).ResourceVersion[1:])); s.Code != 410 {
		t.Errorf("a reader that has read no more than this replica: %v", s)
	}

	answers := make(chan metav1.Status, 1)
	moves := func() {
		version := list(first).ResourceVersion
		go func() { answers <- second.status(userOf("a"), watchFrom(version)) }()
	}
	answeredAfter := func(step time.Duration) {
		testkit.Eventually(t, "the reader's answer", func() bool {
			clock.Step(step)
			return len(answers) > 0
		})
		if s := <-answers; s.Code != 410 {
			t.Errorf("%v", s)
		}
	}
	moves()
	testkit.Eventually(t, "the reader to wait", clock.HasWaiters)
	push(second, "20", "10.98.0.2")
	answeredAfter(behindInterval)
	if listed := list(second); listed.Items[0].Endpoints[0].Addresses[0] != "10.98.0.2" {
		t.Errorf("listed %v", listed.Items)
	}

	gone := sliceOf("b", "shop", "web")
	gone.ResourceVersion = "30"
	first.sliceHandler().OnDelete(gone)
	first.pass()
	moves()
	answeredAfter(behindTime)

	// The second one's watch broke, and it listed again: no event says that the slice is gone.
	second.setRead(func() uint64 { return 29 })
	moves()
	testkit.Eventually(t, "the reader to wait", clock.HasWaiters)
	for range 2 * handTime / behindInterval {
		clock.Step(behindInterval)
		time.Sleep(time.Millisecond) // lets it look
	}
	if len(answers) > 0 {
		t.Error("the reader is answered before the second replica has read as much")
	}
	second.setRead(func() uint64 { return 30 })
	before := clock.Now()
	answeredAfter(behindInterval)
	if waited := clock.Since(before); waited < handTime || waited > behindTime/2 {
		t.Errorf("the reader waited for %s after the list", waited)
	}
}

// A member that says to have read what nobody has does not have the hub wait without end: some of its requests wait, and
// the others are answered at once. Other members have places of their own.
func TestInventedPositionsWait(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	f := newFixtureWith(t, Config{Clock: clock})
	f.member("a", "shop")
	f.member("b", "shop")
	f.pass()
	answers := make(chan int32, 100)
	ask := func(member string) {
		position := memberapi.Position{Version: 1, Seen: math.MaxUint64}
		go func() {
			answers <- f.status(userOf(member), slicesPath+"?watch=true&resourceVersion="+position.String()).Code
		}()
	}
	waiting := func(member fleet.ClusterName) int {
		f.openMu.Lock()
		defer f.openMu.Unlock()
		return f.stateOf(member).behind
	}
	f.transport = insecure(t)
	for range maxBehind + 12 {
		ask("a")
	}
	testkit.Eventually(t, "those that find no place to be answered", func() bool { return len(answers) == 12 && waiting("a") == maxBehind })
	ask("b")
	testkit.Eventually(t, "b to wait", func() bool { return waiting("b") == 1 })
	testkit.Eventually(t, "all to be answered", func() bool {
		clock.Step(behindTime)
		return len(answers) == maxBehind+13
	})
	for range maxBehind + 13 {
		if code := <-answers; code != 410 {
			t.Errorf("a reader is answered %d", code)
		}
	}
}

// While a replica has only what a snapshot has, which may be older than what members have, it serves none of them.
func TestNothingIsServedFromASnapshot(t *testing.T) {
	live := make(chan struct{})
	f := newFixtureWith(t, Config{Live: live, Informers: &informertest.FakeInformers{Scheme: hubScheme(t)}})
	f.export("shop", "web", "b")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error)
	go func() { done <- f.Start(ctx) }()
	f.Must(f.Ping(t.Context())) // its loop works
	select {
	case <-f.Ready():
		t.Error("a snapshot is served")
	default:
	}
	close(live)
	<-f.Ready()
	stop()
	f.Must(<-done)
}

func hubScheme(t *testing.T) *runtime.Scheme {
	s := scheme()
	testkit.Must(t, v1alpha1.AddToScheme(s))
	return s
}
