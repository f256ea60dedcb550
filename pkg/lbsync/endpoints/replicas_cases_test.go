package endpoints

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/lbsync/traffic"
	"crossway.dev/crossway/pkg/replica"
)

// twoHubs have an edge of us each, whose clients send so many requests per second; us-west takes 200.
func twoHubs(t *testing.T, rate float64) (*hubs, func(*simEdge, []string) string) {
	var edges []*simEdge
	for i := range 2 {
		edges = append(edges, &simEdge{Edge: Edge{Pool: "us", Region: "us", Node: fmt.Sprint("edge-", i), Source: "192.0.2.1"}, rate: rate, phase: time.Duration(4*i) * simTick})
	}
	h := newHubs(t, []string{"hub-m", "hub-n"}, edges)
	byNode := func(e *simEdge, names []string) string {
		if e.Node == "edge-0" {
			return names[0]
		}
		return names[len(names)-1]
	}
	h.run(20*time.Second, byNode)
	return h, byNode
}

// awaitParts lets time pass until each edge sends such a part of its requests to a cluster, and says how long that took.
func (h *hubs) awaitParts(limit time.Duration, to func(*simEdge, []string) string, cluster fleet.ClusterName, want float64) time.Duration {
	h.t.Helper()
	begin := h.now
	for {
		there := true
		for _, parts := range h.parts() {
			there = there && math.Abs(float64(parts[cluster])/traffic.TotalParts-want) < 0.02
		}
		switch took := h.now - begin; {
		case there:
			return took
		case took >= limit:
			h.t.Errorf("after %v edges hold %v, not %v for %s; %s", took, h.parts(), want, cluster, h.deciders())
			return took
		}
		h.run(simTick, to)
	}
}

// Requests overflow within two seconds where each of two replicas has half of them.
func TestOverflowOverTwoReplicas(t *testing.T) {
	h, to := twoHubs(t, 60)
	h.awaitParts(0, to, "us-west", 1)
	h.edges[0].rate, h.edges[1].rate = 150, 150
	t.Logf("it took %v", h.awaitParts(2*time.Second, to, "eu-west", 1.0/3))
}

// A cluster to which no connection can be made is held out on all replicas, and stays so whoever decides next.
func TestHeldOutOverTwoReplicas(t *testing.T) {
	h, to := twoHubs(t, 10) // so few that a new replica sees too few probes to find it out itself
	h.dead = "us-west"
	h.awaitParts(4*time.Second, to, "us-west", 0.01)
	begin := len(h.sent)
	for i := range 4 {
		h.start(fmt.Sprint("hub-a", i), 0)
		h.run(8*time.Second, to)
		h.kill(h.decider(), time.Second, 3*time.Second)
		h.run(12*time.Second, to)
	}
	if len(h.sent) > begin {
		t.Errorf("edges were sent %q", h.sent[begin:])
	}
	h.dead = ""
	h.awaitParts(20*time.Second, to, "us-west", 1)
}

// While the network between replicas is split, an edge leaves one side and connects to the other. Each side keeps what it
// knows of the other's edges, for a minute too.
func TestAnEdgeMovesDuringASplit(t *testing.T) {
	h, _ := twoHubs(t, 100)
	third := &simEdge{Edge: Edge{Pool: "us", Region: "us", Node: "edge-2", Source: "192.0.2.1"}, rate: 100, phase: 7 * simTick,
		comesAt: h.now, owed: map[fleet.ClusterName]float64{}, counts: map[string]uint64{}, since: h.now}
	h.edges = append(h.edges, third)
	hub := "hub-m"
	to := func(*simEdge, []string) string { return hub }
	h.run(30*time.Second, to)
	h.awaitParts(0, to, "eu-west", 1.0/3)
	begin := len(h.sent)
	h.network.Cut("hub-m", "hub-n")
	hub = "hub-n"
	h.cut(third, time.Second, time.Second)
	h.run(70*time.Second, to)
	h.network.Heal("hub-m", "hub-n")
	h.run(30*time.Second, to)
	if len(h.sent) > begin {
		t.Errorf("edges were sent %q", h.sent[begin:])
	}
}

// Clients move all their requests from one edge to the other while replicas cannot hear each other, and when one of them ends.
func TestClientsMoveDuringASplit(t *testing.T) {
	h, to := twoHubs(t, 150)
	h.awaitParts(0, to, "eu-west", 1.0/3)
	h.run(20*time.Second, to)
	check := func(what string) {
		t.Helper()
		for _, e := range h.edges { // an edge without clients matters too: they come back
			if got := float64(h.parts()[e.Node]["eu-west"]) / traffic.TotalParts; math.Abs(got-1.0/3) > 0.02 {
				t.Errorf("%v, %s: %s sends %v to eu-west; %q", h.now, what, e.Node, got, h.sent)
			}
		}
	}
	h.network.Cut("hub-m", "hub-n")
	for i := range 4 {
		h.run(3*time.Second, to)
		h.edges[i%2].rate, h.edges[1-i%2].rate = 0, 300
		h.run(15*time.Second, to)
		check("during the split")
	}
	h.network.Heal("hub-m", "hub-n")
	h.run(20*time.Second, to)
	check("after it")
	h.kill("hub-m", time.Second, 5*time.Second)
	h.edges[0].rate, h.edges[1].rate = 300, 0
	h.run(20*time.Second, to)
	check("after a kill")
}

// A replica that stops follows another one at once, while edges are still connected to it.
func TestALeavingReplicaFollows(t *testing.T) {
	h, to := twoHubs(t, 150)
	for _, leaves := range []string{"hub-m", "hub-n"} { // the one that decides, and the other
		h.start("hub-z", 0)
		h.run(10*time.Second, to)
		h.replicas[leaves].link.Leave()
		h.replicas[leaves].Leave()
		h.run(300*time.Millisecond, to)
		if got := h.replicas[leaves].state.Decider(); got == leaves || !h.agree() {
			t.Errorf("%s leaves: %s", leaves, h.deciders())
		}
		h.kill(leaves, time.Second, time.Second)
		h.run(20*time.Second, to)
		h.start(leaves, 0)
		h.kill("hub-z", time.Second, time.Second)
		h.run(20*time.Second, to)
	}
	h.awaitParts(0, to, "eu-west", 1.0/3)
}

// A replica that has just started goes on with the pace at which a cluster's part grows.
func TestPaceOverReplicas(t *testing.T) {
	h, to := twoHubs(t, 60)
	for i := range 60 {
		h.grown = append(h.grown, fmt.Sprintf("10.3.1.%d", i+1))
	}
	for _, r := range h.replicas {
		r.slice(memberSlice("eu-west", "web", h.grown...))
	}
	h.run(3*time.Second, to)
	h.start("hub-z", 0)
	h.run(time.Second, to)
	ready := func(name string) int {
		b, _ := h.replicas[name].state.Backend(backend("web"))
		for _, m := range b.Members {
			if m.Cluster == "eu-west" {
				return m.Ready
			}
		}
		return 0
	}
	if m, z := ready("hub-m"), ready("hub-z"); m != 4 || z != 4 {
		t.Errorf("%d endpoints of 60 count, and at the new replica %d", m, z)
	}
}

// What a replica of another version says counts as not said, which the log says once.
func TestWordsOfAnotherVersion(t *testing.T) {
	var log []string
	network := linktest.NewNetwork()
	link, other := network.Link("hub-m"), network.Link("hub-a")
	f := newReplica(t, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(),
		Hub: Hub{Replica: "hub-m"}, Log: funcr.New(func(_, line string) { log = append(log, line) }, funcr.Options{})})
	link.Start()
	other.Start()
	for _, key := range []string{candidateKey, backend("web").String(), "x"} {
		for _, value := range []string{`{"v":2,"candidate":{"ready":true,"decides":true},"decision":{"regions":[]}}`, `{`, `{"v":1}`,
			`{"v":1,"decision":{"regions":[{"Region":"us","Shares":[{"Cluster":"x","Parts":7}]}]}}`} {
			other.Topic("shares").Set(key, []byte(value))
			other.Topic("load").Set(key, []byte(value))
		}
	}
	f.run()
	dump := f.Dump()
	if len(log) != 1 || dump.Decider != "hub-m" || dump.Replicas["hub-a"].Decisions != 0 || len(dump.Replicas["hub-a"].Edges) != 0 {
		t.Errorf("%v\n%+v", log, dump)
	}
}

// After a replica was silent, the log says again that its values cannot be read: another version may have come under its name.
// A decision that has no encoding ends nothing, and the earlier one does not hold on.
func TestWordsThatCannotBeReadOrWritten(t *testing.T) {
	var log []string
	network := linktest.NewNetwork()
	link, other := network.Link("hub-m"), network.Link("hub-a")
	said := map[string]bool{}
	other.Topic("shares").Subscribe(replica.Observer{Changed: func(_, key string, _ []byte) { said[key] = true }, Deleted: func(_, key string) { delete(said, key) }})
	f := newReplica(t, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(),
		Hub: Hub{Replica: "hub-m"}, Log: funcr.New(func(_, line string) { log = append(log, line) }, funcr.Options{})})
	link.Start()
	other.Start()
	for i := range 4 {
		other.Topic("load").Set("x", fmt.Append(nil, i))
		if i == 1 {
			network.Cut("hub-m", "hub-a")
			network.Heal("hub-m", "hub-a")
		}
	}
	if len(log) != 2 {
		t.Errorf("the log says %q", log)
	}
	key := backend("web").String()
	for _, demand := range []float64{1, math.Inf(1)} {
		f.setShares(key, message{Decision: &state.Decision{Regions: []state.RegionDecision{{Demand: demand}}}})
		if said[key] != (demand == 1) {
			t.Errorf("with a demand of %v the others have a decision: %v", demand, said[key])
		}
	}
}

// A replica that does not hear the other (its port is closed at one node, a certificate is refused) knows nothing of the other's
// edges. The other one hears it, and decides itself all the same: requests overflow as after a split, and a dead cluster is held out.
func TestOneReplicaDoesNotHearTheOther(t *testing.T) {
	for _, deaf := range []string{"hub-m", "hub-n"} {
		for i, far := range []string{"edge-0", "edge-1"} {
			t.Run(deaf+", clients at "+far, func(t *testing.T) {
				h, to := twoHubs(t, 80)
				h.network.CutReading(deaf, map[string]string{"hub-m": "hub-n", "hub-n": "hub-m"}[deaf])
				h.run(20*time.Second, to)
				h.edges[i].rate = 320
				h.run(20*time.Second, to)
				if part := float64(h.parts()[far]["us-west"]) / traffic.TotalParts; part > 0.65 {
					t.Errorf("%s sends %.2f of 320 requests per second to a cluster that takes 200; %s", far, part, h.deciders())
				}
				h.edges[i].rate = 80
				h.run(40*time.Second, to)
				h.dead = "us-west"
				h.run(20*time.Second, to)
				if part := h.parts()[far]["us-west"]; part > traffic.TotalParts/50 { // probes are sent there
					t.Errorf("%s sends %d parts to a dead cluster; %s", far, part, h.deciders())
				}
			})
		}
	}
}
