package endpoints

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// drawEdges are edges of us with a demand that overflows, and of eu with some.
func drawEdges(t *rapid.T) []*simEdge {
	var edges []*simEdge
	for i := range rapid.IntRange(2, 4).Draw(t, "edges") {
		region := []string{"us", "us", "eu", "us"}[i]
		edges = append(edges, &simEdge{Edge: Edge{Pool: region, Region: region, Node: fmt.Sprint("edge-", i), Source: "192.0.2.1"},
			rate: rapid.Float64Range(40, 140).Draw(t, "rate"), phase: time.Duration(rapid.IntRange(0, 9).Draw(t, "phase")) * simTick})
	}
	return edges
}

// At constant demand replicas end and start, are cut off from each other, are stuck for a while and hear of each other late,
// and edges connect to others of them: edges are sent nothing, but for one correction of less than two points.
func TestReplicasComeAndGo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seconds := func(low, high int, what string) time.Duration {
			return time.Duration(rapid.IntRange(low*10, high*10).Draw(rt, what)) * simTick
		}
		late := func() time.Duration { return seconds(0, 1, "late") }
		h := newHubs(t, []string{"hub-m", "hub-n"}, drawEdges(rt))
		anywhere := func(_ *simEdge, names []string) string { return rapid.SampledFrom(names).Draw(rt, "replica") }
		h.run(60*time.Second, anywhere)
		before, begin := h.parts(), len(h.sent)
		check := func(what string) {
			for edge, parts := range h.parts() {
				for cluster, n := range parts {
					if was := before[edge][cluster]; max(n, was)-min(n, was) > 20_000 {
						rt.Fatalf("%v after %s: %s sends %d to %s, not %d; sent %q; %s", h.now, what, edge, n, cluster, was, h.sent[begin:], h.deciders())
					}
				}
			}
		}
		for range rapid.IntRange(1, 6).Draw(rt, "events") {
			names := slices.Sorted(maps.Keys(h.replicas))
			one, other := rapid.SampledFrom(names).Draw(rt, "one"), rapid.SampledFrom(names).Draw(rt, "other")
			what := rapid.SampledFrom([]string{"kill", "leave", "start", "cut", "stuck", "move"}).Draw(rt, "event")
			switch {
			case what == "kill" && len(names) > 1:
				h.kill(one, seconds(0, 4, "connects"), seconds(0, 5, "reports"))
			case what == "leave" && len(names) > 1:
				h.leave(one, anywhere)
			case what == "start" && len(names) < 4:
				h.started++
				h.start(fmt.Sprintf("hub-%c%d", 'a'+rapid.IntRange(0, 25).Draw(rt, "name"), h.started), late())
			case what == "cut" && one != other:
				h.network.Cut(one, other)
				h.run(seconds(1, 70, "split"), anywhere)
				check("a split")
				h.network.Heal(one, other)
			case what == "stuck" && len(names) > 1:
				h.replicas[one].stuckTo = h.now + seconds(1, 10, "stuck")
			case what == "move":
				h.cut(h.edges[0], seconds(0, 4, "connects"), seconds(0, 5, "reports"))
			default:
				continue
			}
			h.run(seconds(1, 30, "pause"), anywhere)
			check(what)
		}
		h.run(15*time.Second, anywhere)
		settled := len(h.sent)
		h.run(30*time.Second, anywhere)
		check("all")
		if !h.agree() {
			rt.Fatalf("replicas disagree: %s", h.deciders())
		}
		if len(h.sent) > settled {
			rt.Fatalf("sent after 15 s: %q", h.sent[settled:])
		}
		for _, e := range h.edges { // a small correction that noise had delayed may come with an event, once
			if n := len(slices.DeleteFunc(slices.Clone(h.sent[begin:]), func(s string) bool { return !strings.Contains(s, e.Node+" by ") })); n > 1 {
				rt.Fatalf("%s was sent %d: %q; %s", e.Node, n, h.sent[begin:], h.deciders())
			}
		}
	})
}

// Demand changes while replicas come and go. Once it is quiet, all replicas have the same in force, which is right for what
// clients send.
func TestReplicasFollowDemand(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seconds := func(low, high int, what string) time.Duration {
			return time.Duration(rapid.IntRange(low*10, high*10).Draw(rt, what)) * simTick
		}
		h := newHubs(t, []string{"hub-m", "hub-n"}, drawEdges(rt))
		anywhere := func(_ *simEdge, names []string) string { return rapid.SampledFrom(names).Draw(rt, "replica") }
		h.run(20*time.Second, anywhere)
		for range rapid.IntRange(1, 6).Draw(rt, "events") {
			names := slices.Sorted(maps.Keys(h.replicas))
			one := rapid.SampledFrom(names).Draw(rt, "one")
			switch what := rapid.SampledFrom([]string{"kill", "start", "cut", "heal", "move", "demand"}).Draw(rt, "event"); {
			case what == "kill" && len(names) > 1:
				h.kill(one, seconds(0, 4, "connects"), seconds(0, 5, "reports"))
			case what == "start" && len(names) < 4:
				h.started++
				h.start(fmt.Sprintf("hub-%c%d", 'a'+rapid.IntRange(0, 25).Draw(rt, "name"), h.started), seconds(0, 1, "late"))
			case what == "cut" && one != names[0]:
				h.network.Cut(one, names[0])
			case what == "heal" && one != names[0]:
				h.network.Heal(one, names[0])
			case what == "move":
				h.cut(h.edges[0], seconds(0, 4, "connects"), seconds(0, 5, "reports"))
			case what == "demand":
				rapid.SampledFrom(h.edges).Draw(rt, "edge").rate = rapid.Float64Range(40, 140).Draw(rt, "rate")
			}
			h.run(seconds(1, 20, "pause"), anywhere)
		}
		for one := range h.replicas {
			for other := range h.replicas {
				h.network.Heal(one, other)
			}
		}
		h.run(75*time.Second, anywhere)
		rate, all := 0.0, 0.0
		for _, e := range h.edges {
			all += e.rate
			if e.Region == "us" {
				rate += e.rate
			}
		}
		capacity := 200 * max(1, all/400) // of each cluster; both are overfilled alike
		for _, e := range h.edges {
			want := 1.0
			if e.Region == "us" {
				want = min(1, capacity/rate)
			}
			home := map[string]fleet.ClusterName{"us": "us-west", "eu": "eu-west"}[e.Region]
			if got := float64(h.parts()[e.Node][home]) / traffic.TotalParts; math.Abs(got-want) > 0.035 || !h.agree() {
				rt.Fatalf("of %v requests per second %s sends %v to %s, not %v; %s", rate, e.Node, got, home, want, h.deciders())
			}
		}
	})
}
