package endpoints

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// A replica starts again, and soon after that the one that decides ends, to which all edges are connected. At constant demand
// the shares stay, though clients move between edges.
func TestDeciderEndsSoonAfterAnotherStarts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ticks := func(low, high int, what string) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(rt, what)) * simTick
		}
		var edges []*simEdge
		for i := range rapid.IntRange(2, 4).Draw(rt, "edges") {
			region := []string{"us", "us", "eu", "us"}[i]
			edges = append(edges, &simEdge{Edge: Edge{Pool: region, Region: region, Node: fmt.Sprint("edge-", i), Source: "192.0.2.1"},
				rate: rapid.Float64Range(110, 150).Draw(rt, "rate"), phase: ticks(0, 9, "phase")})
		}
		h := newHubs(t, []string{"hub-m", "hub-n"}, edges)
		first := func(_ *simEdge, names []string) string { return names[0] }
		h.run(30*time.Second, first)
		before, begin := float64(h.parts()["edge-0"]["us-west"]), len(h.sent)
		run := func(length time.Duration) {
			for end := h.now + length; h.now < end; {
				h.run(simTick, first)
				for edge, parts := range h.parts() {
					if got := float64(parts["us-west"]); edge != "edge-2" && math.Abs(got-before) > 0.02*traffic.TotalParts {
						rt.Fatalf("%v: %s sends %v to us-west, not %v; sent %q; %s", h.now, edge, got, before, h.sent[begin:], h.deciders())
					}
				}
			}
		}
		for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
			h.kill("hub-m", ticks(0, 10, "connects"), ticks(0, 20, "reports"))
			run(ticks(40, 100, "down"))
			h.start("hub-m", 0)
			run(ticks(1, 40, "pause"))
			if rapid.Bool().Draw(rt, "clients move") {
				all, part := h.edges[0].rate+h.edges[1].rate, rapid.Float64Range(0.1, 0.9).Draw(rt, "clients of edge-0")
				h.edges[0].rate, h.edges[1].rate = all*part, all*(1-part)
				run(ticks(10, 40, "pause after it"))
			}
			h.kill("hub-n", ticks(0, 30, "connects"), ticks(0, 70, "reports"))
			run(ticks(1, 100, "down"))
			h.start("hub-n", 0)
			run(30 * time.Second)
		}
	})
}

// The demand changes as the replica that decides ends, soon after another started, which has heard two reports of each edge.
func TestDemandChangesAsTheDeciderEnds(t *testing.T) {
	for _, test := range []struct {
		rate, overflow float64 // of each edge
		within         time.Duration
	}{{190, 1 - 200.0/380, 8 * time.Second}, {105, 1 - 200.0/210, 15 * time.Second}} {
		h, _ := twoHubs(t, 150)
		first := func(_ *simEdge, names []string) string { return names[0] }
		h.kill("hub-m", time.Second, time.Second)
		h.run(20*time.Second, first)
		h.start("hub-m", 0)
		h.run(2*time.Second, first)
		h.kill("hub-n", time.Second, 3*time.Second)
		h.edges[0].rate, h.edges[1].rate = test.rate, test.rate
		t.Logf("%v requests per second: %v", test.rate, h.awaitParts(test.within, first, "eu-west", test.overflow))
		h.run(20*time.Second, first)
		h.awaitParts(0, first, "eu-west", test.overflow)
	}
}

// Two replicas that have just started do not believe each other: what the one that took over has seen since stays.
func TestTwoReplicasStart(t *testing.T) {
	h, _ := twoHubs(t, 150)
	first := func(_ *simEdge, names []string) string { return names[0] }
	h.kill("hub-m", time.Second, time.Second)
	h.run(20*time.Second, first)
	h.start("hub-m", 0)
	h.run(300*time.Millisecond, first)
	h.kill("hub-n", 200*time.Millisecond, 200*time.Millisecond)
	h.edges[0].rate, h.edges[1].rate = 190, 190
	h.run(1200*time.Millisecond, first)
	h.start("hub-n", time.Second)
	t.Logf("it took %v", h.awaitParts(4*time.Second, first, "eu-west", 1-200.0/380))
	h.run(10*time.Second, first)
	h.awaitParts(0, first, "eu-west", 1-200.0/380)
}

// All replicas end for 30 s, and start one after the other. Edges connect and report within seconds of each other, and the first
// report of each is about the whole outage: one edge alone says nothing about the demand.
func TestAllReplicasStart(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		within := func(most int) time.Duration { return time.Duration(r.IntN(most)) * simTick }
		h, _ := twoHubs(t, 150)
		h.edges[0].rate = 300 * []float64{0, 0.1, 0.33, 0.5}[r.IntN(4)]
		h.edges[1].rate = 300 - h.edges[0].rate
		if seed%3 > 0 { // of a region that the other replica knows first
			eu := &simEdge{Edge: Edge{Pool: "eu", Region: "eu", Node: "edge-2", Source: "192.0.2.2"}, rate: 50, owed: map[fleet.ClusterName]float64{}, counts: map[string]uint64{}}
			h.edges = append(h.edges, eu)
		}
		choice := r.Perm(2)
		to := func(e *simEdge, names []string) string {
			return names[choice[map[string]int{"edge-0": 0, "edge-1": int(seed % 2), "edge-2": int(seed / 2 % 2)}[e.Node]]%len(names)]
		}
		h.run(40*time.Second, to)
		begin := len(h.sent)
		for _, e := range h.edges {
			e.phase = within(10)
		}
		h.kill("hub-m", time.Hour, 0)
		h.kill("hub-n", time.Hour, 0)
		h.run(29*time.Second, to)
		names := []string{"hub-m", "hub-n"}
		r.Shuffle(2, func(i, j int) { names[i], names[j] = names[j], names[i] })
		h.start(names[0], within(5))
		for _, e := range h.edges {
			e.comesAt = h.now + within(30)
			e.reports = e.comesAt + within(10)
		}
		h.run(within(20), to)
		h.start(names[1], within(5))
		h.run(40*time.Second, to)
		if len(h.sent) > begin {
			t.Errorf("seed %d: edges were sent %q; %s", seed, h.sent[begin:], h.deciders())
		}
	}
}
