package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"k8s.io/apimachinery/pkg/util/uuid"
	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/replica"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

// said are the last reports of a replica, which nobody writes.
type said struct{ last []condition.Report }

func (s *said) Report(all []condition.Report)            { s.last = all }
func (s *said) Recheck(condition.Kind, fleet.ObjectName) {}

// twin is one of two replicas on one API server.
type twin struct {
	loop            *Reconciler
	edges           *edges
	gateways, pools *said
}

// twins are two replicas with what they read in common, and a link between them.
type twins struct {
	*hub
	network *linktest.Network
	links   [2]*linktest.Link
	clock   *clocktesting.FakeClock
	all     [2]*twin
}

func newTwins(t *testing.T) *twins {
	h := newHub(t)
	h.start()
	h.apply(fleetOfOne)
	h.apply(routeTo("a", "/first"))
	h.pass() // which gives the Gateway its address
	h.awaitCaches(h.pool())
	w := &twins{hub: h, network: linktest.NewNetwork(), clock: clocktesting.NewFakeClock(noon)}
	for i, name := range []string{"hub-a", "hub-b"} {
		w.links[i] = w.network.Link(name)
		w.startTwin(i)
	}
	for _, l := range w.links {
		l.Start()
	}
	w.settle(0, 1)
	for _, one := range w.all {
		one.edges.connected = 1
	}
	return w
}

// startTwin makes a process of one replica: nothing remains of the last one.
func (w *twins) startTwin(i int) {
	e := &edges{of: string(rune('a' + i)), published: map[string]envoy.Resources{}, generation: map[string]uint64{}}
	one := &twin{edges: e, gateways: &said{}, pools: &said{}}
	objects := w.hub.loop.options.Cache
	one.loop = New(Options{Cache: objects, Merges: importhub.NewMerges(objects), Publisher: e, Assigner: e, Reporter: one.gateways, PoolReporter: one.pools,
		Clock: w.clock, Replicas: NewReplicas(w.links[i], w.clock)})
	one.loop.started = w.clock.Now().Add(-time.Hour)
	w.all[i] = one
}

// settle has these replicas pass until nothing changes.
func (w *twins) settle(which ...int) {
	w.Helper()
	for range 4 {
		for _, i := range which {
			w.all[i].loop.inbox.Add(func(p *pending) { p.staleAll() })
			_, err := w.all[i].loop.pass(w.Context())
			w.must(err)
		}
	}
}

// says is what a replica would write: the edges of the pool, what it says of them, the
// Gateway, and what is on record.
func (w *twins) says(i int) string {
	one := w.all[i]
	var out []string
	for _, r := range one.pools.last {
		if r.Ref.Name.Name != w.name {
			continue
		}
		out = append(out, fmt.Sprintf("edges %d", r.Pool.Edges))
		for _, c := range r.Conditions {
			out = append(out, fmt.Sprintf("%s %s", c.Type, c.Status))
		}
	}
	for _, r := range one.gateways.last {
		if r.Ref.Kind == condition.Gateway && r.Ref.Name.Namespace == w.name {
			out = append(out, fmt.Sprintf("%s %s", r.Conditions[1].Type, r.Conditions[1].Status))
		}
	}
	for _, f := range one.loop.rollout.Records() {
		text := fmt.Sprintf("refused %d", f.Version.Generation)
		if f.Outvoted {
			text += " by some"
		}
		if f.Instead != nil {
			text += fmt.Sprintf(" instead %d", f.Instead.Generation)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (w *twins) expect(what, want string, which ...int) {
	w.Helper()
	w.settle(which...)
	for _, i := range which {
		if got := w.says(i); got != want {
			w.Errorf("%s: replica %d says\n %s, want\n %s", what, i, got, want)
		}
	}
}

func (w *twins) messageOfPool(i int) string {
	for _, r := range w.all[i].pools.last {
		if r.Ref.Name.Name == w.name {
			return r.Conditions[0].Message
		}
	}
	return ""
}

// reasonOfGateway is why the Gateway is programmed or not.
func (w *twins) reasonOfGateway(i int) string {
	for _, r := range w.all[i].gateways.last {
		if r.Ref.Kind == condition.Gateway && r.Ref.Name.Namespace == w.name {
			return r.Conditions[1].Reason
		}
	}
	return ""
}

const allIsWell = "edges 2, Ready True, ConfigurationAccepted True, Programmed True"

// Whoever leads writes the same: what the edges of both replicas answered.
func TestStatusesCountAllReplicas(t *testing.T) {
	w := newTwins(t)
	w.all[1].edges.lag = 1
	w.settle(1) // so that a hears of it before it takes the Gateway for programmed
	w.expect("an edge of b is behind", "edges 2, Ready True, ConfigurationAccepted True, Programmed False", 0, 1)
	w.all[1].edges.lag = 0
	w.expect("an edge each", allIsWell, 0, 1)

	refuse := func(_ uint64, r envoy.Resource) string {
		if strings.Contains(string(r.Body.GetValue()), "/second") {
			return "no"
		}
		return ""
	}
	w.all[0].edges.refuses, w.all[1].edges.refuses = refuse, nil
	w.apply(routeTo("a", "/second"))
	w.expect("that of a refuses a route", "edges 2, Ready True, ConfigurationAccepted False, Programmed True, refused 2 by some instead 1", 0, 1)
	if w.all[0].edges.hasRoutes(w.name, 1) == w.all[1].edges.hasRoutes(w.name, 1) {
		t.Error("both edges have the same routes")
	}

	w.all[1].edges.refuses = func(_ uint64, r envoy.Resource) string {
		if strings.Contains(string(r.Body.GetValue()), "/third") {
			return "no"
		}
		return refuse(0, r)
	}
	w.all[0].edges.refuses = w.all[1].edges.refuses
	w.apply(routeTo("a", "/third"))
	w.expect("both refuse the next version, of which they have different ones", "edges 2, Ready True, ConfigurationAccepted False, Programmed True, refused 3 instead 2", 0, 1)
}

// A replica that is silent is remembered for a while, and so is an edge that moves.
func TestSilentReplica(t *testing.T) {
	w := newTwins(t)
	w.expect("an edge each", allIsWell, 0, 1)
	w.network.Cut("hub-a", "hub-b")
	w.expect("a split", allIsWell, 0, 1)
	if got, want := w.messageOfPool(0), `edges are connected to the hub; 1 of them were connected to replica "hub-b" of the hub, which is silent since 2026-05-01T12:00:00Z, and count as they were for 2m0s after that`; got != want {
		t.Errorf("a says\n %s, want\n %s", got, want)
	}
	w.clock.Step(silentHold - time.Second)
	w.expect("the last second of it", allIsWell, 0, 1)
	if next := w.all[0].loop.nextCheck(); !next.Equal(w.clock.Now().Add(time.Second)) {
		t.Errorf("the loop looks again at %s, and it is %s", next, w.clock.Now())
	}
	w.clock.Step(time.Second)
	w.expect("a long split", "edges 1, Ready True, ConfigurationAccepted True, Programmed True", 0, 1)
	if got := w.messageOfPool(0); !strings.Contains(got, `edges that are connected to replica "hub-b" of the hub, which is silent since`) {
		t.Errorf("a says %s", got)
	}
	w.network.Heal("hub-a", "hub-b")
	w.expect("it is healed", allIsWell, 0, 1)

	w.links[1].Stop()
	w.all[0].edges.of, w.all[0].edges.connected = "b", 1 // the edge of b comes to a, and that of a leaves
	w.expect("b is dead and its edge comes to a", allIsWell, 0)
	w.clock.Step(leftHold)
	w.expect("the edge that left is forgotten", "edges 1, Ready True, ConfigurationAccepted True, Programmed True", 0)
	w.all[0].edges.connected = 0
	w.expect("an edge changes its stream", "edges 1, Ready True, ConfigurationAccepted True, Programmed True", 0)
	w.clock.Step(leftHold + silentHold)
	w.expect("nobody is left", "edges 0, Ready False, Programmed False", 0)
	if got := w.messageOfPool(0); strings.Contains(got, "hub-b") {
		t.Errorf("the pod of b is gone, and a says %s", got)
	}
}

// A replica whose pod is there and that was never heard is named once it has had time to start.
func TestReplicaThatWasNeverHeard(t *testing.T) {
	w := newTwins(t)
	w.expect("an edge each", allIsWell, 0, 1)
	never := w.network.Link("hub-c")
	w.network.Cut("hub-a", "hub-c")
	never.Start()
	w.expect("c starts", allIsWell, 0)
	if got := w.messageOfPool(0); strings.Contains(got, "hub-c") {
		t.Errorf("at once a says %s", got)
	}
	if next := w.all[0].loop.nextCheck(); next.After(w.clock.Now().Add(silentHold)) {
		t.Errorf("the loop looks again at %s, and it is %s", next, w.clock.Now())
	}
	w.clock.Step(silentHold)
	w.expect("c is never heard", allIsWell, 0)
	if got := w.messageOfPool(0); !strings.Contains(got, `edges that are connected to replica "hub-c" of the hub, which is silent since`) {
		t.Errorf("a says %s", got)
	}
}

// gatewayWithPort is the Gateway with one more listener.
const gatewayWithPort = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: NAME}
spec: {gatewayClassName: NAME, listeners: [{name: http, port: 80, protocol: HTTP}, {name: other, port: %d, protocol: HTTP}]}`

// Edges whose stream has ended count as they were, and have neither taken nor refused what came later.
func TestEdgesThatLeftTakeNothing(t *testing.T) {
	w := newTwins(t)
	w.expect("an edge each", allIsWell, 0, 1)
	w.all[0].edges.connected, w.all[1].edges.connected = 0, 0
	w.expect("both change their stream", allIsWell, 0, 1)
	w.apply(fmt.Sprintf(gatewayWithPort, 81))
	w.expect("the Gateway is edited meanwhile", strings.Replace(allIsWell, "Programmed True", "Programmed False", 1), 0, 1)
	w.all[0].edges.connected, w.all[1].edges.connected = 1, 1
	w.expect("they are back", allIsWell, 0, 1)

	for _, one := range w.all {
		one.edges.refuses = func(_ uint64, r envoy.Resource) string {
			if r.TypeURL == resourcev3.ListenerType {
				return "no"
			}
			return ""
		}
	}
	reasons := func(what string, refused bool) {
		t.Helper()
		w.settle(0, 1)
		for i := range w.all {
			if got := w.reasonOfGateway(i); (got == condition.RefusedByEdge) != refused {
				t.Errorf("%s: replica %d says %s", what, i, got)
			}
		}
	}
	w.apply(fmt.Sprintf(gatewayWithPort, 82))
	reasons("both refuse it", true)
	w.all[0].edges.connected, w.all[1].edges.connected = 0, 0
	reasons("both change their stream", true)
	w.apply(fmt.Sprintf(gatewayWithPort, 83))
	reasons("it is edited meanwhile", false)
}

// Edges of which a replica has more to say than a link takes have not left: they count as it said last, until it says
// something else, and nobody relies on that.
func TestAnswersThatAreTooLarge(t *testing.T) {
	w := newTwins(t)
	w.expect("an edge each", allIsWell, 0, 1)
	w.links[1].Topic("edges").Set(answersPrefix+w.name, make([]byte, replica.MaxValueBytes+1))
	w.expect("b has too much to say", allIsWell, 0)
	if got := w.all[0].loop.options.Replicas.Unread(); !slices.Equal(got, []string{"hub-b"}) {
		t.Errorf("a has not read %v", got)
	}
	w.all[1].edges.connected = 2
	w.expect("b has less to say", strings.Replace(allIsWell, "edges 2", "edges 3", 1), 1, 0)
	if got := w.all[0].loop.options.Replicas.Unread(); len(got) > 0 {
		t.Errorf("a has not read %v", got)
	}
}

// A replica that has just started says of EdgePools what their status says, as long as
// edges may not have found it.
func TestEdgePoolAfterAStart(t *testing.T) {
	w := newTwins(t)
	w.hub.edges.connected = 2
	w.hub.pass() // which writes the status
	w.awaitCaches(w.pool())
	w.startTwin(0)
	w.all[0].loop.started = w.clock.Now()
	w.settle(0)
	if got := w.says(0); !strings.HasPrefix(got, "edges 2, Ready True") {
		t.Errorf("at the start: %s", got)
	}
	w.clock.Step(ReconnectGrace)
	w.settle(0)
	if got := w.says(0); !strings.HasPrefix(got, "edges 0, Ready False") {
		t.Errorf("later: %s", got)
	}
}

// An edge that refuses many large routes takes no room from what replicas tell each other of other pools.
func TestRecordsLeaveRoomForOthers(t *testing.T) {
	network := linktest.NewNetwork()
	a, b := network.Link("hub-a"), network.Link("hub-b")
	bytes, keys := 0, map[string]bool{}
	b.Topic("edges").Subscribe(replica.Observer{Changed: func(_, key string, value []byte) { bytes += len(value); keys[key] = true }})
	a.Start()
	b.Start()
	refuses := func(pool string, routes, size int) (out rollout.PoolAnswers) {
		for i := range routes {
			f := rollout.Refusal{Pool: pool, Ref: routeRef(fmt.Sprint("r", i)), Version: rollout.ObjectVersion{UID: "uid", Generation: 2}, Message: strings.Repeat("x", size)}
			out.Refused = append(out.Refused, f)
		}
		return out
	}
	NewReplicas(a, clocktesting.NewFakeClock(noon)).tell(t.Context(), rollout.Answers{
		"evil": refuses("evil", maxRecords, 400<<10), "good": refuses("good", 3, 1000)})
	if bytes > replica.MaxBytes/4 {
		t.Errorf("%d MB of records are told", bytes>>20)
	}
	for i := range 3 {
		if key := refusedKey("good", routeRef(fmt.Sprint("r", i))); !keys[key] {
			t.Errorf("%s is not told", key)
		}
	}
}

// What the edges of a pool with 16,000 Gateways answered fits into one value.
func TestManyGatewaysFit(t *testing.T) {
	told := rollout.PoolAnswers{Gateways: map[fleet.ObjectName]rollout.ServedGateway{}}
	for i := range 16000 {
		version := rollout.ObjectVersion{UID: uuid.NewUUID(), Generation: int64(i % 7)}
		told.Gateways[fleet.ObjectName{Namespace: fmt.Sprint("tenant-", i%500), Name: fmt.Sprint("gateway-", i)}] = rollout.ServedGateway{Version: version, Complete: true}
	}
	for i := range 100 {
		told.Edges = append(told.Edges, rollout.EdgeAnswers{Edge: rollout.Edge{Node: fmt.Sprint("edge-", i), Zone: "us-a", Since: noon, Begin: noon, End: noon, Credential: string(uuid.NewUUID())}})
	}
	if value, _, err := encodeAnswers("us", told); err != nil || len(value) > replica.MaxValueBytes {
		t.Errorf("%d bytes: %v", len(value), err)
	}
}

// What another version says is not read, and what is larger than a link takes is not lost
// with what is small: records have keys of their own.
func TestAnswersOnTheWire(t *testing.T) {
	ref := routeRef("a")
	first := rollout.ObjectVersion{UID: "uid", Generation: 1}
	second := rollout.ObjectVersion{UID: "uid", Generation: 2}
	stored := httpRoute("a", "/first")
	stored.UID, stored.Generation = first.UID, first.Generation
	instead := objectOfRoute(gateway.FromHTTPRoute(stored))
	told := rollout.PoolAnswers{Gateways: map[fleet.ObjectName]rollout.ServedGateway{shop("web"): {Version: first, Complete: true}},
		Edges:   []rollout.EdgeAnswers{{Edge: rollout.Edge{Node: "x", Since: noon, End: noon}, Routes: []rollout.RouteVersion{{Ref: ref, Version: second}}}},
		Refused: []rollout.Refusal{{Pool: "us", Ref: ref, Version: second, Message: "no", Instead: &instead}},
		Taken:   []rollout.RouteVersion{{Ref: ref, Version: first}}}
	value, records, err := encodeAnswers("us", told)
	if err != nil || len(records) != 1 || strings.Contains(string(value), "/first") {
		t.Fatalf("%s, records %v, %v", value, records, err)
	}
	known := func(key string) (rollout.Refusal, bool) {
		f, err := refusalFrom(records[key])
		return f, err == nil
	}
	got, err := decodeAnswers("us", value, known)
	if err != nil || len(got.Edges) != 1 || got.Edges[0].Node != "x" || len(got.Edges[0].Routes) != 1 || len(got.Refused) != 1 ||
		got.Refused[0].Instead == nil || got.Refused[0].Message != "no" || got.Gateways[shop("web")] != told.Gateways[shop("web")] || len(got.Taken) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = decodeAnswers("us", value, func(string) (rollout.Refusal, bool) { return rollout.Refusal{}, false })
	if err != nil || len(got.Edges[0].Routes)+len(got.Refused) != 0 {
		t.Errorf("a route is refused of which it is not known what edges get instead: %+v, %v", got, err)
	}
	for i := range 100 {
		e := rollout.EdgeAnswers{Edge: rollout.Edge{Node: fmt.Sprint(i), Since: noon, Begin: noon, End: noon}}
		for n := range 200 {
			e.Lacks = append(e.Lacks, shop(fmt.Sprintf("gateway-%d", n)))
		}
		told.Edges = append(told.Edges, e)
	}
	if value, _, err = encodeAnswers("us", told); err != nil || len(value) > replica.MaxValueBytes {
		t.Errorf("100 edges that lack 200 Gateways are %d bytes: %v", len(value), err)
	}
	if got, err := decodeAnswers("us", value, known); err != nil || len(got.Edges) != 101 || len(got.Edges[100].Lacks) != 200 {
		t.Errorf("of 100 edges that lack 200 Gateways %d are read: %v", len(got.Edges), err)
	}
	if _, err := decodeAnswers("us", []byte(`{"version": 2}`), known); err == nil {
		t.Error("another version is read")
	}
}
