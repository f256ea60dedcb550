package endpoints

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// A network split between two replicas with an edge each ends after a minute. Clients of us send 300 requests per second for an
// import of which us-west takes 200, over few connections: they move between the edges, all at once, before the split, during it
// and as it ends. What clients see stays.
func TestHealOfASplit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ticks := func(low, high int, what string) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(rt, what)) * simTick
		}
		var edges []*simEdge
		for i := range 2 {
			edges = append(edges, &simEdge{Edge: Edge{Pool: "us", Region: "us", Node: fmt.Sprint("edge-", i), Source: "192.0.2.1"},
				phase: ticks(0, 9, "phase")})
		}
		const rate = 300.0
		clients := func(what string) {
			part := rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(rt, what)
			edges[0].rate, edges[1].rate = rate*part, rate*(1-part)
		}
		clients("clients of edge-0")
		h := newHubs(t, []string{"hub-m", "hub-n"}, edges)
		to := func(e *simEdge, names []string) string {
			return map[string]string{"edge-0": names[0], "edge-1": names[len(names)-1]}[e.Node]
		}
		h.run(30*time.Second, to)
		before, begin := float64(h.parts()["edge-0"]["us-west"]), len(h.sent)
		var seconds []string // what clients see, and what each edge has
		run := func(length time.Duration) {
			for end := h.now + length; h.now < end; {
				h.run(simTick, to)
				parts := h.parts()
				if h.now%time.Second == 0 {
					seen := (edges[0].rate*float64(parts["edge-0"]["us-west"]) + edges[1].rate*float64(parts["edge-1"]["us-west"])) / rate
					seconds = append(seconds, fmt.Sprintf("%.0f(%d,%d)", seen/1e4, parts["edge-0"]["us-west"]/1e4, parts["edge-1"]["us-west"]/1e4))
				}
				for edge, parts := range parts { // one without clients matters, too: they come back
					if got := float64(parts["us-west"]); math.Abs(got-before) > 0.02*traffic.TotalParts {
						rt.Fatalf("%v: %s sends %v to us-west, not %v; %s; sent %q; %s", h.now, edge, got, before, strings.Join(seconds, " "), h.sent[begin:], h.deciders())
					}
				}
			}
		}
		moves := func(length time.Duration, times int) {
			for end := h.now + length; h.now < end; {
				pause := end - h.now
				if times > 0 {
					pause = min(pause, ticks(1, int(length/simTick), "pause"))
				}
				times--
				if run(pause); h.now < end {
					clients("clients of edge-0")
				}
			}
		}
		moves(8*time.Second, rapid.IntRange(0, 2).Draw(rt, "moves before"))
		h.network.Cut("hub-m", "hub-n")
		moves(54*time.Second, rapid.IntRange(0, 3).Draw(rt, "moves"))
		moves(6*time.Second, rapid.IntRange(0, 2).Draw(rt, "moves at the end"))
		h.network.Heal("hub-m", "hub-n")
		moves(10*time.Second, rapid.IntRange(0, 2).Draw(rt, "moves after"))
		run(20 * time.Second)
	})
}
