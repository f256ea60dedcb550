package state

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// held is what an edge of us says that it holds of import web.
func held(shares traffic.RegionShares) []traffic.BackendShares {
	return []traffic.BackendShares{{Backend: importNamed("web"), RegionShares: shares}}
}

// statements draws shares over members, of which some do not exist or have no endpoints.
var statements = rapid.Custom(func(t *rapid.T) traffic.RegionShares {
	west := rapid.Uint32Range(0, traffic.TotalParts).Draw(t, "west")
	clusters := rapid.SampledFrom([][]fleet.ClusterName{{"eu-west", "us-west"}, {"nowhere", "us-west"}, {"eu-west", "us-east"}}).Draw(t, "clusters")
	s := traffic.RegionShares{Shares: []traffic.Share{{Cluster: clusters[0], Parts: traffic.TotalParts - west}, {Cluster: clusters[1], Parts: west}}}
	s.HeldOut = rapid.SampledFrom([][]fleet.ClusterName{nil, {"us-west"}, {"eu-west"}, {"eu-west", "us-west"}}).Draw(t, "held out")
	if rapid.Bool().Draw(t, "dead") {
		s.Dead = s.HeldOut
	}
	return s
})

// inForce is what the hub divides the requests of us for import web by.
func inForce(s *State) string {
	b := s.backends[importNamed("web")]
	return fmt.Sprint(b.sharesOf("us"), b.region("us").health.HeldOut(), b.region("us").health.Dead())
}

// After a restart what most edges hold is in force, whatever fewer than half of them say, and whoever speaks first.
func TestMostEdgesDecideAfterARestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "edges")
		hostile := rapid.IntRange(0, (n-1)/2).Draw(t, "hostile edges")
		honest := statements.Draw(t, "honest")
		reference, s := newFleet(), newFleet()
		reference.Learn(Edge{Pool: "us", Region: "us", Node: "one", Source: "192.0.2.1"}, held(honest), start)
		order := rapid.Permutation(numbers(n)).Draw(t, "order")
		now := start
		for _, i := range order {
			edge := Edge{Pool: "us", Region: "us", Node: fmt.Sprint("edge-", i), Source: fmt.Sprint("192.0.2.", i)}
			s.Connected(edge, start)
			says := honest
			if i < hostile {
				says = statements.Draw(t, "hostile")
				if rapid.Bool().Draw(t, "changes its mind") {
					s.Learn(edge, held(honest), now)
				}
			}
			s.Learn(edge, held(says), now)
			if rapid.Bool().Draw(t, "pass") {
				s.Update(now)
			}
			now = now.Add(100 * time.Millisecond)
		}
		s.Update(now)
		reference.Update(now)
		if got, want := inForce(s), inForce(reference); got != want {
			t.Fatalf("in force: %s; most edges hold %s", got, want)
		}
	})
}

func numbers(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// One machine that poses as many edges has one say, and a version that names members without endpoints, or too late,
// none.
func TestWhatDoesNotCountAfterARestart(t *testing.T) {
	all := func(cluster fleet.ClusterName) traffic.RegionShares {
		return traffic.RegionShares{Shares: []traffic.Share{{Cluster: cluster, Parts: traffic.TotalParts}}}
	}
	edge := func(node, source string) Edge { return Edge{Pool: "us", Region: "us", Node: node, Source: source} }
	s := newFleet()
	before := inForce(s)
	s.Learn(edge("one", "192.0.2.1"), held(all("us-east")), start) // has no endpoints
	s.Learn(edge("one", "192.0.2.1"), held(all("nowhere")), start)
	if got := inForce(s); got != before {
		t.Errorf("members without endpoints: %s, want %s", got, before)
	}
	for i := range 50 {
		s.Learn(edge(fmt.Sprint("thief-", i), "192.0.2.66"), held(all("eu-west")), start)
	}
	s.Learn(edge("one", "192.0.2.1"), held(all("us-west")), start)
	s.Learn(edge("two", "192.0.2.2"), held(all("us-west")), start)
	if got := s.backends[importNamed("web")].sharesOf("us").Shares; !slices.Equal(got, all("us-west").Shares) {
		t.Errorf("one machine decided: %v", got)
	}
	for i := range 3 {
		s.Learn(edge(fmt.Sprint("late-", i), fmt.Sprint("192.0.2.", i)), held(all("eu-west")), start.Add(learningTime))
	}
	if got := s.backends[importNamed("web")].sharesOf("us").Shares; !slices.Equal(got, all("us-west").Shares) {
		t.Errorf("the first edges were heard %s ago: %v", learningTime, got)
	}
	if s.learning["us"].votes != nil {
		t.Error("what edges said is still remembered")
	}
}
