package endpoints

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway/model"
)

// connect connects an edge of us that has some versions already.
func (f *fixture) connect(versions map[string]string) Edge {
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f.Connected(edge)
	f.InitialVersions(edge, versions)
	return edge
}

// failing is a fixture with import web, and an edge by whose reports no connection to us-west can be made, and requests to
// eu-west succeed.
func failing(t *testing.T) (f *fixture, edge Edge, fail func()) {
	f = newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	edge = f.connect(nil)
	f.report(edge, "a", "web", map[string]uint64{"us-west": 1}) // the first report of an edge does not say how requests failed
	return f, edge, func() {
		f.clock.Step(time.Second)
		f.ObserveLoad(edge, []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{
			{SubZone: "us-west/shop/web", Failed: 20}, {SubZone: "eu-west/shop/web", Issued: 20, Succeeded: 20}}}})
		f.run()
	}
}

const (
	heldOut = "ServiceImport/shop/web=eu-west:990000,us-west:10000!us-west*us-west"
	atHome  = "ServiceImport/shop/web=us-west:1000000"
)

// A member to which no connection can be made for two reports is held out, probed with 1 %, and readmitted with the first success.
func TestHeldOut(t *testing.T) {
	f, edge, fail := failing(t)
	fail()
	if got := f.shares("us", "a"); got != atHome {
		t.Errorf("one bad report: %s", got)
	}
	fail()
	if got := f.shares("us", "a"); got != heldOut {
		t.Errorf("two bad reports: %s", got)
	}
	f.clock.Step(time.Second)
	f.report(edge, "a", "web", map[string]uint64{"us-west": 1, "eu-west": 20})
	f.run()
	if got := f.shares("us", "a"); got != atHome {
		t.Errorf("a success: %s", got)
	}
}

// Slices that change, whatever changes in them, give a member that fails nothing back.
func TestSlicesThatChangeKeepNobodyServed(t *testing.T) {
	f, _, fail := failing(t)
	fail()
	for second := range 60 {
		fail()
		addresses := []string{"10.1.1.1", "10.1.1.2"}
		if second%3 > 0 {
			addresses = append(addresses, fmt.Sprintf("10.1.1.%d", 10+second))
		}
		f.slice(memberSlice("us-west", "web", addresses...))
		f.run()
		if got := f.shares("us", "a"); got != heldOut {
			t.Fatalf("second %d: %s", second, got)
		}
	}
}

// Where few clients are, new endpoints of a held-out member are tried before their time, once.
func TestNewEndpointsAreTriedOnce(t *testing.T) {
	f, edge, fail := failing(t)
	fail()
	fail()
	quiet := func() {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"eu-west": 1})
		f.run()
	}
	for i, want := range []string{heldOut, heldOut, atHome} {
		addresses := [][]string{{"10.1.1.1"}, {"10.1.1.1"}, {"10.1.1.1", "10.1.1.9"}}[i]
		f.slice(memberSlice("us-west", "web", addresses...))
		f.run()
		quiet()
		if got := f.shares("us", "a"); got != want {
			t.Errorf("second %d, %d endpoints: %s", i, len(addresses), got)
		}
	}
	fail()
	fail()
	for i := range 5 {
		f.slice(memberSlice("us-west", "web", "10.1.1.1", fmt.Sprintf("10.1.1.%d", 20+i)))
		f.run()
		quiet()
		if got := f.shares("us", "a"); got != heldOut {
			t.Errorf("tried again after %d s: %s", i, got)
		}
	}
}

// A held-out member that had no request for half a minute gets its share back. An open stream is no request.
func TestUntriedMemberIsRetried(t *testing.T) {
	f, edge, fail := failing(t)
	fail()
	fail()
	stream := func() {
		f.ObserveLoad(edge, []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{
			{SubZone: "us-west/shop/web", Open: 1}, {SubZone: "eu-west/shop/web", Issued: 2, Succeeded: 2}}}})
	}
	stream()
	for second := range 30 {
		if got := f.shares("us", "a"); !strings.HasPrefix(got, strings.TrimSuffix(heldOut, "*us-west")) { // a stream shows that it lives
			t.Errorf("held out %d s ago: %s", second, got)
		}
		f.clock.Step(time.Second)
		stream()
		f.run()
	}
	if got := f.shares("us", "a"); got != atHome {
		t.Errorf("no request has tried it for 30 s: %s", got)
	}
}

// A member is readmitted when its agent reconnects after a silence.
func TestAgentReconnects(t *testing.T) {
	f, _, fail := failing(t)
	renewed := f.clock.Now()
	reachable := func(status metav1.ConditionStatus) {
		m := f.state.MemberCluster("us-west").DeepCopy()
		m.Status.LastHeardTime = &metav1.Time{Time: renewed}
		m.Status.Conditions = []metav1.Condition{{Type: condition.MemberReachableType, Status: status}}
		f.inbox.memberHandler().OnUpdate(m, m)
		f.run()
	}
	reachable(metav1.ConditionTrue)
	fail()
	fail()
	reachable(metav1.ConditionTrue)
	reachable(metav1.ConditionFalse)
	if got := f.shares("us", "a"); got != heldOut {
		t.Errorf("its agent is silent: %s", got)
	}
	renewed = renewed.Add(12 * time.Second)
	reachable(metav1.ConditionTrue)
	if got := f.shares("us", "a"); got != heldOut {
		t.Errorf("its agent was silent in gossip alone: %s", got)
	}
	reachable(metav1.ConditionFalse)
	renewed = renewed.Add(v1alpha1.AgentLeaseDuration)
	reachable(metav1.ConditionTrue)
	if got := f.shares("us", "a"); got != atHome {
		t.Errorf("its agent reconnected: %s", got)
	}
	reachable(metav1.ConditionFalse)
	f.inbox.memberHandler().OnDelete(f.state.MemberCluster("us-west"))
	f.run()
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=eu-west:1000000" {
		t.Errorf("it is deleted: %s", got)
	}
}

// twoRules are two rules with import web: in assignment "both" beside api, in assignment "own" alone, with api as fallback.
type twoRules struct {
	*fixture
	edge Edge
}

func startTwoRules(t *testing.T, versions map[string]string) twoRules {
	own := assignmentOf("own", "web")
	own.Fallback = assignmentOf("", "api").Backends
	f := twoRules{fixture: newFixture(t)}
	f.import2("web", 1)
	f.import2("api", 2)
	f.SetAssignments([]model.Assignment{assignmentOf("both", "api", "web"), own}, nil)
	f.edge = f.connect(versions)
	f.run()
	return f
}

// second is a second in which api answers, and web in some clusters with the given counts.
func (f twoRules) second(issued, succeeded uint64, clusters ...string) {
	f.clock.Step(time.Second)
	var loads []Load
	for _, key := range []string{"both", "own"} {
		load := Load{Assignment: key, Interval: time.Second, Localities: []LocalityLoad{{SubZone: "us-west/shop/api", Issued: 50, Succeeded: 50}}}
		for _, cluster := range clusters {
			load.Localities = append(load.Localities, LocalityLoad{SubZone: cluster + "/shop/web", Issued: issued, Succeeded: succeeded, Failed: 20 - succeeded})
		}
		loads = append(loads, load)
	}
	f.ObserveLoad(f.edge, loads)
	f.run()
}

func (f twoRules) expect(why string, want []string) {
	f.t.Helper()
	var got []string
	for _, key := range []string{"both", "own"} {
		load := new(endpointv3.ClusterLoadAssignment)
		testkit.Must(f.t, f.edges.pools["us"][key].Body.UnmarshalTo(load))
		text := key
		for _, l := range load.Endpoints {
			text += fmt.Sprintf(" %s=%d", l.GetLocality().GetSubZone(), l.GetLoadBalancingWeight().GetValue())
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s:\n got %q\nwant %q", why, got, want)
	}
}

// An import to which not even connections can be made gives its weight to the other backends of its rule, until it answers;
// an import that answers errors keeps it. A hub that restarts meanwhile learns it.
func TestDownImportGivesItsWeightAway(t *testing.T) {
	healthy := []string{"both eu-west/shop/api=1 us-west/shop/api=500000 eu-west/shop/web=1 us-west/shop/web=500000",
		"own eu-west/shop/web=4000 us-west/shop/web=4000000000 us-west/shop/api=1"}
	down := []string{"both eu-west/shop/api=1 us-west/shop/api=990000 eu-west/shop/web=5000 us-west/shop/web=5000",
		"own eu-west/shop/web=10000 us-west/shop/web=10000 eu-west/shop/api=1 us-west/shop/api=980000"}
	f := startTwoRules(t, nil)
	f.expect("all is well", healthy)
	for range 12 { // a small move waits
		f.second(20, 0, "us-west", "eu-west")
	}
	f.expect("web answers errors", healthy)
	for range 2 { // the last request that reached it still counts
		f.second(0, 0, "us-west", "eu-west")
	}
	if n := testutil.CollectAndCount(f.Loop, "crossway_import_down"); n != 1 { // only in us: eu has no clients
		t.Errorf("it is down in %d regions", n)
	}
	for range 60 { // one of them is tried more often than the other
		f.expect("web is dead", down)
		f.second(0, 0, "us-west")
	}
	f = startTwoRules(t, f.edges.versions("us"))
	for range 60 {
		f.expect("the hub restarted", down)
		f.second(0, 0, "us-west")
	}
	f.second(20, 1, "us-west", "eu-west")
	f.expect("web answers", healthy)
	for range 3 {
		f.second(0, 0, "us-west", "eu-west")
	}
	f.expect("web is dead again", down)
	f = startTwoRules(t, f.edges.versions("us"))
	f.slice(memberSlice("us-west", "web"))
	f.run()
	for range 10 {
		f.second(0, 0, "eu-west")
	}
	f.expect("its part in one member is gone, the other sends no reports", []string{
		"both eu-west/shop/api=1 us-west/shop/api=990000 eu-west/shop/web=10000", "own eu-west/shop/web=20000 eu-west/shop/api=1 us-west/shop/api=980000"})
}

// An error that comes seconds after its request is an answer, too, and its report has no issued request. Other endpoints
// may refuse connections meanwhile: that alone holds the member out, in seconds in which no request reaches an endpoint.
func TestLateErrorsAreAnswers(t *testing.T) {
	for name, reports := range map[string][]LocalityLoad{
		"all answer":              {{Issued: 3, Open: 3}, {Failed: 3}},
		"all but one do":          {{Issued: 1, Open: 1, Failed: 2}, {Open: 1, Failed: 2}, {Open: 1, Failed: 2}, {Open: 1}, {Failed: 1}},
		"connections fail beside": {{Issued: 1, Open: 1, Failed: 9}, {Open: 1}, {Failed: 1}, {}},
	} {
		f := newFixture(t)
		f.import2("web", 1)
		f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
		edge := f.connect(nil)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 1}) // the first report does not say how requests failed
		for second := range 40 {
			load := reports[second%len(reports)]
			load.SubZone = "us-west/shop/web"
			f.clock.Step(time.Second)
			f.ObserveLoad(edge, []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{load}}})
			f.run()
			if h := f.heldOut("web"); len(h) > 0 && h[0].Dead {
				t.Fatalf("%s: dead after %d s", name, second)
			}
		}
		if heldOut := len(f.heldOut("web")) == 1; heldOut != (name == "all but one do") {
			t.Errorf("%s: held out %v", name, heldOut)
		}
	}
}

// A held-out member that can be reached does not make an import down when the other members lose their endpoints.
func TestHeldOutIsNotDown(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	f.connect(map[string]string{"a": "h;ServiceImport/shop/web=eu-west:10000,us-west:990000!eu-west"})
	f.slice(memberSlice("us-west", "web"))
	f.run()
	if got := f.shares("us", "a"); got != "ServiceImport/shop/web=eu-west:1000000!eu-west" {
		t.Error(got)
	}
}

// The order of the assignments in an edge's report does not matter.
func TestOrderOfLoads(t *testing.T) {
	var got []string
	for range 2 {
		f := newFixture(t)
		f.import2("web", 1)
		f.import2("api", 2)
		own := assignmentOf("own", "web")
		own.Fallback = assignmentOf("", "api").Backends
		f.SetAssignments([]model.Assignment{assignmentOf("api", "api"), own}, nil)
		edge := f.connect(nil)
		loads := []Load{{Assignment: "api", Interval: time.Second},
			{Assignment: "own", Interval: time.Second, Localities: []LocalityLoad{{SubZone: "us-west/shop/api", Failed: 20}}}}
		if got != nil {
			slices.Reverse(loads)
		}
		for range 3 {
			f.clock.Step(time.Second)
			f.ObserveLoad(edge, loads)
			f.run()
		}
		got = append(got, f.shares("us", "api"))
	}
	if got[0] != got[1] || !strings.HasSuffix(got[0], "*us-west") {
		t.Error(got)
	}
}

// The weight of a backend that is down is demand of the other backends, and overflows where it exceeds their capacity.
func TestFailoverIsDemand(t *testing.T) {
	for _, key := range []string{"both", "own"} {
		f := newFixture(t)
		f.import2("web", 1)
		f.import2("api", 2)
		both, own, api := assignmentOf("both", "api", "web"), assignmentOf("own", "web"), assignmentOf("api", "api")
		both.Backends[1].Weight, own.Backends[0].Weight = 9, 9
		own.Fallback = api.Backends
		f.SetAssignments([]model.Assignment{api, both, own}, []model.ImportPolicy{rated("api", 10)})
		edge := f.connect(nil)
		for second := range 20 {
			f.clock.Step(time.Second)
			load := Load{Assignment: key, Interval: time.Second, Localities: []LocalityLoad{{SubZone: "us-west/shop/api", Issued: 40, Succeeded: 40}}}
			if second < 5 {
				load.Localities = append(load.Localities, LocalityLoad{SubZone: "us-west/shop/web", Failed: 40}, LocalityLoad{SubZone: "eu-west/shop/web", Failed: 40})
			}
			f.ObserveLoad(edge, []Load{{Assignment: "api", Interval: time.Second}, load})
			f.run()
		}
		if got := f.shares("us", "api"); got != "ServiceImport/shop/api=eu-west:500000,us-west:500000" { // 40, of which 20 fit into us-west
			t.Errorf("%s: %s", key, got)
		}
	}
}

// The fallback is published with its endpoints and shares.
func TestFallbackIsPublished(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.import2("api", 2)
	a := assignmentOf("a", "web")
	f.SetAssignments([]model.Assignment{a}, nil)
	f.edges.takeChanged()
	a.Fallback = assignmentOf("", "api").Backends
	f.SetAssignments([]model.Assignment{a}, nil)
	if got := f.edges.takeChanged(); got != "eu:a us:a" {
		t.Errorf("published %q", got)
	}
	f.slice(memberSlice("us-west", "api", "10.1.2.9"))
	f.run()
	if got := f.edges.takeChanged(); got != "us:a" { // eu has its own api
		t.Errorf("published %q", got)
	}
	if b, _ := f.state.Backend(backend("api")); len(b.Members) != 2 {
		t.Errorf("the fallback has shares over %d members", len(b.Members))
	}
	a.Fallback = nil
	f.SetAssignments([]model.Assignment{a}, nil)
	if _, ok := f.state.Backend(backend("api")); ok {
		t.Error("a backend that no assignment uses is kept")
	}
}
