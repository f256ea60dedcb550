package endpoints

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// A changed slice costs exactly the assignments that use its service, in every pool, and nothing where its addresses
// stay the same.
func TestSliceCostsItsAssignments(t *testing.T) {
	f := newFixture(t)
	f.import2("blue", 1)
	f.import2("green", 2)
	f.import2("red", 3)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "blue"), assignmentOf("b", "green"), assignmentOf("c", "blue", "green"), assignmentOf("d", "red")}, nil)
	if got, want := f.edges.take(), "eu:a eu:b eu:c eu:d us:a us:b us:c us:d"; got != want {
		t.Fatalf("first: %s", got)
	}
	s := memberSlice("us-west", "green", "10.1.2.1", "10.1.2.3")
	f.slice(s)
	looked := newDirty()
	events := f.intake.take()
	f.world.apply(events, looked)
	if len(looked.assignments) != 2 || len(looked.flows) != 1 {
		t.Errorf("one changed slice made %d assignments and %d splits anew", len(looked.assignments), len(looked.flows))
	}
	f.slice(s)
	f.run()
	if got, want := f.edges.take(), "eu:b eu:c us:b us:c"; got != want {
		t.Errorf("one changed slice cost %q, want %q", got, want)
	}
	s = s.DeepCopy()
	s.Annotations = map[string]string{"touched": "yes"}
	f.slice(s)
	f.run()
	if got := f.edges.take(); got != "" {
		t.Errorf("a slice with the same endpoints cost %q", got)
	}
	f.intake.sliceHandler().OnDelete(s)
	f.run()
	if got, want := f.edges.take(), "eu:b eu:c us:b us:c"; got != want {
		t.Errorf("a deleted slice cost %q, want %q", got, want)
	}
}

// Addresses outside of a member's CIDRs never reach an assignment, nor does a member that is not accepted; and a slice
// counts for the cluster whose namespace it is in, whatever its labels say.
func TestForeignAddresses(t *testing.T) {
	f := newFixture(t)
	f.slice(memberSlice("us-west", "web", "10.1.0.1", "::ffff:10.1.0.2", "10.3.0.9", "169.254.169.254", "127.0.0.1", "192.0.2.1"))
	trick := memberSlice("eu-west", "web", "10.3.0.9", "10.3.0.10")
	trick.Namespace = "member-us-east" // us-east says that it is eu-west
	f.slice(trick)
	stranger := memberSlice("nobody", "web", "10.4.0.1")
	f.slice(stranger)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	made := lbsync.Assign(f.world.input(f.world.assignments["a"], "us"))
	if len(made.Localities) != 1 || len(made.Localities[0].Endpoints) != 1 || made.Localities[0].Endpoints[0].String() != "10.1.0.1:8080" {
		t.Errorf("got %v, want us-west's 10.1.0.1:8080 alone", made.Localities)
	}
	// A slice in a member's namespace is no Service of the hub's own cluster.
	own := memberSlice("us-west", "x", "10.1.0.7")
	own.Labels = map[string]string{"kubernetes.io/service-name": "web"}
	if s := readSlice(own); s != nil {
		t.Errorf("a member's slice became the hub's Service: %v", s.part)
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

// A region has one order of overflow: that of its oldest pool that names one.
func TestNearestOfTheOldestPool(t *testing.T) {
	f := newFixture(t)
	for i, name := range []string{"z", "y", "a"} { // from old to young; the oldest names none
		p := &v1alpha1.EdgePool{}
		p.Name, p.CreationTimestamp = name, metav1.NewTime(time.Unix(int64(i), 0))
		p.Spec = v1alpha1.EdgePoolSpec{Region: "asia", Nearest: [][]string{nil, {"us"}, {"eu"}}[i]}
		f.intake.poolHandler().OnAdd(p, false)
	}
	f.run()
	var got []string
	for _, r := range f.world.regions {
		got = append(got, r.name+">"+strings.Join(r.nearest, ","))
	}
	if s := strings.Join(got, " "); s != "asia>us eu>us us>eu" {
		t.Errorf("the regions overflow %s", s)
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

// overflow fills us-west: 30 requests per second from us for an import that takes 20 there.
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
	if len(f.said) != 1 || f.said[0].Ancestors[0].Conditions[0].Status != metav1.ConditionTrue || f.said[0].Ref.Name.Name != "web-policy" {
		t.Errorf("reported %+v", f.said)
	}
	f.edges.take()
	for i := range 9 { // as an edge counts 30 a second
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": uint64(19 + i%3), "eu-west": 10})
		f.run()
	}
	if got := f.edges.take(); got != "" {
		t.Errorf("constant demand published %s", got)
	}
	for i := range 60 {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 10})
		f.run()
		if status := f.said[0].Ancestors[0].Conditions[0].Status; i == 25 && status != metav1.ConditionTrue || i == 59 && status != metav1.ConditionFalse {
			t.Errorf("after %d s with room: Overflowing %s", i+1, status)
		}
	}
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=us-west:1000000" {
		t.Errorf("with room again: %s", got)
	}
}

// What was said of an import ends with what it was about: when nobody uses it any more it has room, and when the policy
// is in force no more nothing is said.
func TestOverflowEndsWithItsImport(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f := overflowing(t, edge)
	said := func() string {
		f.clock.Step(time.Second)
		f.run()
		out := ""
		for _, r := range f.said {
			out += fmt.Sprint(r.Ref.Name.Name, r.Ref.Generation)
			for _, a := range r.Ancestors {
				out += fmt.Sprint(" ", a.Name.Name, "=", a.Conditions[0].Status)
			}
		}
		return out
	}
	if got := said(); got != "web-policy1 web=True" {
		t.Fatal(got)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 10)})
	if got := said(); got != "web-policy1 web=False" {
		t.Errorf("no route uses it: %s", got)
	}
	f.SetAssignments(nil, nil)
	if got := said(); got != "web-policy1" {
		t.Errorf("the import is gone: %s", got)
	}
	f.clock.Step(2 * time.Minute)
	if said(); said() != "" {
		t.Errorf("after a while: %v", f.said)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 10)})
	if got := said(); got != "web-policy1 web=False" {
		t.Errorf("the import is back: %s", got)
	}
	f.SetAssignments(nil, []model.ImportPolicy{rated("web", 0)})
	if got := said(); got != "web-policy1" {
		t.Errorf("the policy has no rate: %s", got)
	}
}

// What an edge names is nobody's until a member has a part of the import: neither versions nor load reports make the hub
// remember strangers, or say their names in metrics, where text that is not UTF-8 would be its end.
func TestEdgesNameStrangers(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	f.Connected(edge)
	f.InitialVersions(edge, map[string]string{"a": "abc;ServiceImport/shop/web=us-west:1000000!nobody,%FF"})
	for range 3 {
		f.clock.Step(time.Second)
		f.ObserveLoad(edge, []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{
			{SubZone: "\xfe/shop/web", Issued: 20, Failed: 20}, {SubZone: "stranger/shop/web", Issued: 20, Failed: 20}, {SubZone: "eu-west/shop/web", Issued: 20, Failed: 20}}}})
		f.run()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.Loop)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprint(families)
	if strings.Contains(out, "nobody") || strings.Contains(out, "stranger") || !strings.Contains(out, "eu-west") {
		t.Error(out)
	}
	if got := f.world.flows[backend("web")].region("us").health.HeldOut(); !slices.Equal(got, []fleet.ClusterName{"eu-west"}) {
		t.Errorf("held out: %q", got)
	}
}

// A hub that starts anew learns the shares from the edge that comes back, publishes the same versions, and keeps them
// while constant demand is counted again.
func TestRestartChangesNothing(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	before := overflowing(t, edge)
	holds := before.edges.versions("us")

	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "web")}, []model.ImportPolicy{rated("web", 10)})
	if f.shares("us", "a") == twoThirds {
		t.Fatal("a hub that knows no demand overflows: nothing is tested")
	}
	f.Connected(edge)
	f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10}) // on its own stream, before it says what it holds
	f.run()
	f.InitialVersions(edge, holds)
	for i := range 12 {
		for name, version := range holds {
			if got := f.edges.pools["us"][name].Version; got != version {
				t.Fatalf("after %d s %s is %s, the edge has %s", i, name, got, version)
			}
		}
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10})
		f.run()
	}
	// Its own knowledge counts from then on, and what is as it was is not divided again.
	f.clock.Step(time.Second)
	f.report(edge, "a", "web", map[string]uint64{"us-west": 20, "eu-west": 10})
	f.intake.kick = make(chan struct{}, 1)
	f.world.apply(f.intake.take(), newDirty())
	if f.world.flows[backend("web")].due {
		t.Error("constant demand is divided again with every report")
	}
	for range 20 {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 10})
		f.run()
	}
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=us-west:1000000" {
		t.Errorf("demand fell after the restart: %s", got)
	}
}

// Whether a backend is probed goes to the edges with its endpoints.
func TestUncheckedIsPublished(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.import2("api", 2)
	a := assignmentOf("a", "api", "web")
	f.SetAssignments([]model.Assignment{a}, nil)
	f.edges.take()
	b := a
	b.Backends = slices.Clone(a.Backends)
	b.Backends[1].Unchecked = true
	f.SetAssignments([]model.Assignment{b}, nil)
	if got := f.edges.take(); got != "eu:a us:a" {
		t.Errorf("published %q", got)
	}
}

// Learned shares stay while an edge that is back has not reported: what the others counted is only a part.
func TestRestartWaitsForEveryEdge(t *testing.T) {
	one, two := Edge{Pool: "us", Region: "us", Node: "one"}, Edge{Pool: "us", Region: "us", Node: "two"}
	holds := overflowing(t, one).edges.versions("us")
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "web")}, []model.ImportPolicy{rated("web", 10)})
	for _, e := range []Edge{one, two} {
		f.Connected(e)
		f.InitialVersions(e, holds)
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
func TestRestartMovesTheLost(t *testing.T) {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	holds := overflowing(t, edge).edges.versions("us")
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, []model.ImportPolicy{rated("web", 10)})
	f.Connected(edge)
	f.InitialVersions(edge, holds)
	f.slice(memberSlice("us-west", "web"))
	f.run()
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=eu-west:1000000" {
		t.Errorf("us-west lost its endpoints: %s", got)
	}
}

// Nothing is said to any pool before the first Build; a pool that comes later gets everything at once.
func TestPools(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.run()
	if f.edges.calls != 0 {
		t.Errorf("%d calls before the first Build", f.edges.calls)
	}
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	f.edges.take()
	f.pool("us-internal", "us")
	f.pool("asia", "asia")
	f.run()
	if got := f.edges.take(); got != "asia:a us-internal:a" {
		t.Errorf("new pools got %q", got)
	}
	delete(f.edges.pools, "asia") // forgotten by the Publisher, and there again before the Loop saw that it was gone
	f.PoolRemoved("asia")
	f.run()
	if got := f.edges.take(); got != "asia:a" {
		t.Errorf("a pool that was made anew got %q", got)
	}
	f.SetAssignments(nil, nil)
	if n := len(f.edges.pools["us"]); n != 0 {
		t.Errorf("%d assignments left", n)
	}
}

// Clients that change from one edge to another between two reports are counted by both, or by none, until the estimate's
// window has passed. A small move that only this explains is not made; the same move, when it stays, is.
func TestSmallMovesWait(t *testing.T) {
	f := newFlow(fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}})
	f.policy.Rate, f.policy.Mode = 10, model.Waterfall
	d := division{
		now:     time.Unix(1_000_000, 0),
		members: []traffic.Capacity{{Cluster: "eu-west", Region: "eu", Ready: 2, Scaler: 1}, {Cluster: "us-west", Region: "us", Ready: 2, Scaler: 1}},
		regions: []regionView{{name: "us", edges: []string{"a", "b"}}},
	}
	second := func(a, b uint64) bool {
		d.now = d.now.Add(time.Second)
		for edge, n := range map[string]uint64{"a": a, "b": b} {
			f.region("us").demand.Observe(traffic.Sample{Edge: edge, End: d.now, Interval: time.Second, Issued: n, Succeeded: n})
		}
		return f.divide(d)
	}
	for range 15 {
		second(15, 15)
	}
	if got := f.sharesOf("us").PartsOf("us-west"); got != 666_667 {
		t.Fatalf("at 30 rps us-west has %d parts", got)
	}
	moves := 0
	for i := range 40 { // b's clients go to a, which counts them before b misses them, and come back the same way
		a, b := uint64(15), uint64(15)
		switch i % 10 {
		case 2:
			a = 22
		case 3, 4, 5:
			a, b = 22, 8
		}
		if second(a, b) {
			moves++
		}
	}
	if moves > 0 {
		t.Errorf("clients that change their edge moved the shares %d times", moves)
	}
	waited := 0
	for ; waited < 20 && !second(16, 16); waited++ {
	}
	if waited == 0 || waited == 20 {
		t.Errorf("two more requests per second for good moved the shares after %d s", waited)
	}
}
