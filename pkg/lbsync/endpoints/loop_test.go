package endpoints

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// A changed slice costs exactly the assignments that use its service, in every pool, and nothing where its addresses
// stay the same.
func TestSliceCostsItsAssignments(t *testing.T) {
	f := newFixture(t)
	f.import2("blue", 1)
	f.import2("green", 2)
	f.import2("red", 3)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "blue"), assignmentOf("b", "green"), assignmentOf("c", "blue", "green"), assignmentOf("d", "red")}, nil)
	if got, want := f.edges.takeChanged(), "eu:a eu:b eu:c eu:d us:a us:b us:c us:d"; got != want {
		t.Fatalf("first: %s", got)
	}
	s := memberSlice("us-west", "green", "10.1.2.1", "10.1.2.3")
	f.slice(s)
	f.run()
	if got, want := f.edges.takeChanged(), "eu:b eu:c us:b us:c"; got != want {
		t.Errorf("one changed slice cost %q, want %q", got, want)
	}
	s = s.DeepCopy()
	s.Annotations = map[string]string{"touched": "yes"}
	f.slice(s)
	f.run()
	if got := f.edges.takeChanged(); got != "" {
		t.Errorf("a slice with the same endpoints cost %q", got)
	}
	f.inbox.sliceHandler().OnDelete(s)
	f.run()
	if got, want := f.edges.takeChanged(), "eu:b eu:c us:b us:c"; got != want {
		t.Errorf("a deleted slice cost %q, want %q", got, want)
	}
}

// Addresses outside of a member's CIDRs never reach an assignment, nor does a member that is not accepted; and a slice
// counts for the cluster whose namespace it is in, whatever its labels say.
func TestForeignAddresses(t *testing.T) {
	f := newFixture(t)
	f.slice(memberSlice("us-west", "web", "10.1.0.1", "::ffff:10.1.0.2", "10.3.0.9", "169.254.169.254", "127.0.0.1", "192.0.2.1"))
	claimed := memberSlice("eu-west", "web", "10.3.0.9", "10.3.0.10")
	claimed.Namespace = "member-us-east" // us-east claims to be eu-west
	f.slice(claimed)
	unknown := memberSlice("unknown", "web", "10.4.0.1")
	f.slice(unknown)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	load := lbsync.Assign(f.state.AssignInput("a", "us"))
	if len(load.Localities) != 1 || len(load.Localities[0].Endpoints) != 1 || load.Localities[0].Endpoints[0].String() != "10.1.0.1:8080" {
		t.Errorf("got %v, want us-west's 10.1.0.1:8080 alone", load.Localities)
	}
	// A slice in a member's namespace is no Service of the hub's own cluster.
	own := memberSlice("us-west", "x", "10.1.0.7")
	own.Labels = map[string]string{"kubernetes.io/service-name": "web"}
	if state.ReadSlice(own) != nil {
		t.Error("a member's slice became a Service of the hub")
	}
}

// A member that does not export a service has no share of it, whatever slices it pushes; once it exports it, it has.
func TestOnlyExportersHaveAShare(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	a := assignmentOf("a", "web")
	a.Backends[0].Clusters = []fleet.ClusterName{"eu-west"}
	f.SetAssignments([]model.Assignment{a}, nil)
	if us := f.shares("us", "a"); us != "ServiceImport/shop/web=eu-west:1000000" {
		t.Errorf("us-west does not export web: %s", us)
	}
	both := assignmentOf("a", "web")
	both.Backends[0].Clusters = []fleet.ClusterName{"eu-west", "us-west"}
	f.SetAssignments([]model.Assignment{both}, nil)
	f.run()
	if us := f.shares("us", "a"); us != "ServiceImport/shop/web=us-west:1000000" {
		t.Errorf("us-west exports web: %s", us)
	}
}

// A member that is drained moves at once, and back; another that loses its last endpoint, too.
func TestDrainAndEmpty(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	for _, step := range []struct {
		what   string
		do     func()
		us, eu string
	}{
		{"each region its own", func() {}, "us-west:1000000", "eu-west:1000000"},
		{"us-west drained", func() { f.member("us-west", "us", "10.1.0.0/16", 0) }, "eu-west:1000000", "eu-west:1000000"},
		{"us-west back", func() { f.member("us-west", "us", "10.1.0.0/16", 100) }, "us-west:1000000", "eu-west:1000000"},
		{"eu-west empty", func() { f.slice(memberSlice("eu-west", "web")) }, "us-west:1000000", "us-west:1000000"},
	} {
		step.do()
		f.run()
		if us, eu := f.shares("us", "a"), f.shares("eu", "a"); us != "ServiceImport/shop/web="+step.us || eu != "ServiceImport/shop/web="+step.eu {
			t.Errorf("%s: us %s, eu %s", step.what, us, eu)
		}
	}
}

// overflowing fills us-west: 30 requests per second from us for an import that takes 20 there.
func overflowing(t *testing.T, edge Edge) *fixture {
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "web")}, []model.ImportPolicy{rated("web", 10)})
	f.Connected(edge)
	f.InitialVersions(edge, nil)
	for range 8 {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10})
		f.run()
	}
	return f
}

const twoThirds = "ServiceImport/shop/web=eu-west:333333,us-west:666667"

// Demand beyond the capacity of a region's own members overflows, in every assignment that uses the import; constant
// demand publishes nothing more; the policy says so, and that it ended half a minute after it did.
func TestOverflow(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f := overflowing(t, edge)
	if a, b := f.shares("us", "a"), f.shares("us", "b"); a != twoThirds || b != twoThirds {
		t.Fatalf("shares %s, %s", a, b)
	}
	if len(f.reports) != 1 || f.reports[0].Parents[0].Conditions[0].Status != metav1.ConditionTrue || f.reports[0].Ref.Name.Name != "web-policy" {
		t.Errorf("reported %+v", f.reports)
	}
	f.edges.takeChanged()
	for i := range 9 { // as an edge counts 30 a second
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": uint64(19 + i%3), "eu-west": 10})
		f.run()
	}
	if got := f.edges.takeChanged(); got != "" {
		t.Errorf("constant demand published %s", got)
	}
	for i := range 60 {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 10})
		f.run()
		if status := f.reports[0].Parents[0].Conditions[0].Status; i == 25 && status != metav1.ConditionTrue || i == 59 && status != metav1.ConditionFalse {
			t.Errorf("after %d s without overflow: Overflowing %s", i+1, status)
		}
	}
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=us-west:1000000" {
		t.Errorf("after the demand fell: %s", got)
	}
}

// An import that no route uses does not overflow, and a policy that is no longer in force is reported without conditions.
func TestOverflowEndsWithItsImport(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f := overflowing(t, edge)
	reported := func() string {
		f.clock.Step(time.Second)
		f.run()
		out := ""
		for _, r := range f.reports {
			out += fmt.Sprint(r.Ref.Name.Name, r.Ref.Generation)
			for _, a := range r.Parents {
				out += fmt.Sprint(" ", a.ParentRef.Name, "=", a.Conditions[0].Status)
			}
		}
		return out
	}
	if got := reported(); got != "web-policy1 web=True" {
		t.Fatal(got)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 10)})
	if got := reported(); got != "web-policy1 web=False" {
		t.Errorf("no route uses it: %s", got)
	}
	f.SetAssignments(nil, nil)
	if got := reported(); got != "web-policy1" {
		t.Errorf("the import is gone: %s", got)
	}
	f.clock.Step(2 * time.Minute)
	if reported(); reported() != "" {
		t.Errorf("after a while: %v", f.reports)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 10)})
	if got := reported(); got != "web-policy1 web=False" {
		t.Errorf("the import is back: %s", got)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 0)})
	if got := reported(); got != "web-policy1" {
		t.Errorf("the policy has no rate: %s", got)
	}
}

// Edges may name clusters that have no part of an import: neither versions nor load reports make the hub remember them, or
// put their names into metrics, where text that is not UTF-8 would end the scrape.
func TestEdgesNameUnknownClusters(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	f.Connected(edge)
	f.InitialVersions(edge, map[string]string{"a": "abc;ServiceImport/shop/web=us-west:1000000!nobody,%FF"})
	for range 3 {
		f.clock.Step(time.Second)
		f.ObserveLoad(edge, []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{
			{SubZone: "\xfe/shop/web", Issued: 20, Failed: 20}, {SubZone: "stranger/shop/web", Issued: 20, Failed: 20}, {SubZone: "eu-west/shop/web", Failed: 20}}}})
		f.run()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.Loop)
	families, err := registry.Gather()
	testkit.Must(t, err)
	out := fmt.Sprint(families)
	if strings.Contains(out, "nobody") || strings.Contains(out, "stranger") || !strings.Contains(out, "eu-west") {
		t.Error(out)
	}
	if got := f.heldOut("web"); len(got) != 1 || got[0].Cluster != "eu-west" {
		t.Errorf("held out: %v", got)
	}
}

// A hub that starts anew learns the shares from the edge that comes back, publishes the same versions, and keeps them
// while constant demand is counted again.
func TestRestartChangesNothing(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	before := overflowing(t, edge)
	versions := before.edges.versions("us")

	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "web")}, []model.ImportPolicy{rated("web", 10)})
	if f.shares("us", "a") == twoThirds {
		t.Fatal("a hub without demand overflows: nothing is tested")
	}
	f.Connected(edge)
	f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10}) // on its own stream, before its initial versions
	f.run()
	f.InitialVersions(edge, versions)
	for i := range 12 {
		for name, version := range versions {
			if got := f.edges.pools["us"][name].Version; got != version {
				t.Fatalf("after %d s %s is %s, the edge has %s", i, name, got, version)
			}
		}
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10})
		f.run()
	}
	// From then on the hub's own estimate counts.
	for range 20 {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 10})
		f.run()
	}
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=us-west:1000000" {
		t.Errorf("demand fell after the restart: %s", got)
	}
}

// Whether a backend has health checks is published with its endpoints.
func TestUncheckedIsPublished(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.import2("api", 2)
	a := assignmentOf("a", "api", "web")
	f.SetAssignments([]model.Assignment{a}, nil)
	f.edges.takeChanged()
	b := a
	b.Backends = slices.Clone(a.Backends)
	b.Backends[1].Unchecked = true
	f.SetAssignments([]model.Assignment{b}, nil)
	if got := f.edges.takeChanged(); got != "eu:a us:a" {
		t.Errorf("published %q", got)
	}
}

// Learned shares stay while an edge that reconnected has not reported: the counts of the other edges are only a part.
func TestRestartWaitsForEveryEdge(t *testing.T) {
	one, two := Edge{Pool: "us", Region: "us", Node: "one"}, Edge{Pool: "us", Region: "us", Node: "two"}
	versions := overflowing(t, one).edges.versions("us")
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "web")}, []model.ImportPolicy{rated("web", 10)})
	for _, e := range []Edge{one, two} {
		f.Connected(e)
		f.InitialVersions(e, versions)
	}
	for i := range 15 {
		f.clock.Step(time.Second)
		f.report(one, "a", "web", map[string]uint64{"us-west": 10, "eu-west": 5})
		if i > 3 {
			f.report(two, "a", "web", map[string]uint64{"us-west": 10, "eu-west": 5})
		}
		f.run()
		if got := f.shares("us", "a"); got != twoThirds {
			t.Fatalf("after %d s: %s", i+1, got)
		}
	}
}

// While learned shares are kept, a member that lost its last endpoint gives its part to the others at once.
func TestRestartMovesAMemberWithoutEndpoints(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	versions := overflowing(t, edge).edges.versions("us")
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, []model.ImportPolicy{rated("web", 10)})
	f.Connected(edge)
	f.InitialVersions(edge, versions)
	f.slice(memberSlice("us-west", "web"))
	f.run()
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=eu-west:1000000" {
		t.Errorf("us-west lost its endpoints: %s", got)
	}
}

// Nothing is published to any pool before the first Build; a pool that comes later gets everything at once.
func TestPools(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.run()
	if f.edges.calls != 0 {
		t.Errorf("%d calls before the first Build", f.edges.calls)
	}
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	f.edges.takeChanged()
	f.pool("us-internal", "us")
	f.pool("asia", "asia")
	f.run()
	if got := f.edges.takeChanged(); got != "asia:a us-internal:a" {
		t.Errorf("new pools got %q", got)
	}
	delete(f.edges.pools, "asia") // removed by the Publisher, and created again before the Loop saw that it was deleted
	f.PoolRemoved("asia")
	f.run()
	if got := f.edges.takeChanged(); got != "asia:a" {
		t.Errorf("a pool that was created again got %q", got)
	}
	f.SetAssignments(nil, nil)
	if n := len(f.edges.pools["us"]); n != 0 {
		t.Errorf("%d assignments left", n)
	}
}

// blockedEdges is a Publisher that does not return until it is let go.
type blockedEdges struct {
	*fakeEdges
	free chan struct{}
}

func (b blockedEdges) UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string) {
	<-b.free
	b.fakeEdges.UpdateLoadAssignments(pool, changed, removed)
}

// An idle loop answers a Ping, one that is stuck does not, and it answers again when it turns again.
func TestPing(t *testing.T) {
	edges := blockedEdges{&fakeEdges{pools: map[string]map[string]envoy.Resource{}}, make(chan struct{})}
	l := New(Config{Cache: noInformers{}, Publisher: edges})
	l.inbox.poolHandler().OnAdd(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}}, false)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Start(ctx) }()
	ping := func(limit time.Duration) error {
		limited, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return l.Ping(limited)
	}
	if err := ping(10 * time.Second); err != nil {
		t.Errorf("an idle loop: %v", err)
	}
	assigned := make(chan struct{})
	go func() {
		defer close(assigned)
		l.SetAssignments([]model.Assignment{assignmentOf("web", "web")}, nil)
	}()
	time.Sleep(2 * tickInterval)
	if err := ping(3 * tickInterval); err == nil {
		t.Error("a loop that is stuck answers")
	}
	close(edges.free)
	<-assigned
	if err := ping(10 * time.Second); err != nil {
		t.Errorf("a loop that turns again: %v", err)
	}
	cancel()
	testkit.Must(t, <-ended)
}

// noInformers have no object, and have synced.
type noInformers struct{}

func (noInformers) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return syncedInformer{}, nil
}

type syncedInformer struct{ cache.Informer }

func (syncedInformer) AddEventHandler(toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return syncedInformer{}, nil
}

func (syncedInformer) HasSynced() bool                          { return true }
func (syncedInformer) HasSyncedChecker() toolscache.DoneChecker { return nil }
