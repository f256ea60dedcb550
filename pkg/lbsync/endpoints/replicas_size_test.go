package endpoints

import (
	"fmt"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	hubreplica "crossway.dev/crossway/pkg/replica"
)

// What is remembered of an edge that invents names of assignments is bounded.
func TestInventedAssignmentsAreForgotten(t *testing.T) {
	link := linktest.NewNetwork().Link("hub-a")
	f := newReplica(t, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(),
		Hub: Hub{Replica: "hub-a"}})
	edge := Edge{Pool: "us", Region: "us", Node: "x", Source: "192.0.2.1"}
	f.Connected(edge)
	for i := range 100 {
		var loads []Load
		for n := range 1000 {
			loads = append(loads, Load{Assignment: fmt.Sprintf("invented-%060d", i*1000+n), Interval: time.Second})
		}
		f.ObserveLoad(edge, loads)
		f.run()
	}
	bytes := 0
	for name := range f.peers.edges.edges[edge.Key()].idle {
		bytes += len(name)
	}
	if bytes > 2<<20 {
		t.Errorf("%d bytes of names are remembered", bytes)
	}
}

// An edge with requests for thousands of assignments is an edge at other replicas, too, and so is one whose report is
// beyond a limit of the link. Shares that are do not hold on as they were.
func TestLargeReportsReachOtherReplicas(t *testing.T) {
	network, clock := linktest.NewNetwork(), clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	replica := func(name string) (*fixture, *linktest.Link) {
		link := network.Link(name)
		return newReplica(t, clock, Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(), Hub: Hub{Replica: name}}), link
	}
	a, linkA := replica("hub-a")
	b, linkB := replica("hub-b")
	linkA.Start()
	linkB.Start()
	edge := Edge{Pool: "us", Region: "us", Node: "x", Source: "192.0.2.1"}
	a.Connected(edge)
	var loads []Load
	var assignments []model.Assignment
	for n := range 5000 {
		load := Load{Assignment: fmt.Sprintf("httproute/shop/route-%d/rule-0", n), Interval: time.Second}
		for _, cluster := range []string{"us-west", "us-east", "eu-west"} {
			load.Localities = append(load.Localities, LocalityLoad{SubZone: fmt.Sprintf("%s/shop/web-%d", cluster, n), Issued: uint64(n % 97), Succeeded: uint64(n % 89)})
		}
		loads, assignments = append(loads, load), append(assignments, model.Assignment{Key: load.Assignment})
	}
	a.SetAssignments(assignments, nil)
	a.ObserveLoad(edge, loads)
	var last state.EdgeReport
	b.inbox.Add(func(c *state.Changes) {
		for _, w := range c.Words {
			if w.Kind == state.Reported {
				last = w.Edge
			}
		}
	})
	if len(last.Loads) != 5000 || last.Loads[96].Localities[2].Issued != 96 {
		t.Errorf("hub-b is told of %d assignments", len(last.Loads))
	}
	b.run()
	if got := b.Dump().Replicas["hub-a"].Edges; len(got) != 1 {
		t.Errorf("hub-b knows %v of the edges of hub-a", got)
	}

	const backend = "service shop/web"
	linkA.Topic("shares").Set(backend, written(t, message{Decision: &state.Decision{}}))
	if b.run(); b.Dump().Replicas["hub-a"].Decisions != 1 {
		t.Error("hub-b has no shares of hub-a")
	}
	tooLarge := make([]byte, hubreplica.MaxValueBytes+1)
	linkA.Topic("load").Set(edge.Key(), tooLarge)
	linkA.Topic("shares").Set(backend, tooLarge)
	b.run()
	if got := b.Dump().Replicas["hub-a"]; len(got.Edges) != 1 || got.Decisions != 0 {
		t.Errorf("hub-b does not get what is too large, and knows %+v", got)
	}
}
