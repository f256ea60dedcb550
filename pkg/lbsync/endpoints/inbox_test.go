package endpoints

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// While no pass runs, as without the CRD of a kind, what other replicas say costs no more than they have: each edge, each
// backend. The first pass knows what is so by then.
func TestWordsThatWaitAreBounded(t *testing.T) {
	network, clock := linktest.NewNetwork(), clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	link, other := network.Link("hub-m"), network.Link("hub-a")
	f := newReplica(t, clock, Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(), Hub: Hub{Replica: "hub-m"}})
	link.Start()
	other.Start()
	edge := func(i int) Edge {
		return Edge{Pool: "us", Region: "us", Node: fmt.Sprint("edge-", i), Source: "192.0.2.1"}
	}
	pending := func() (words, loads int) {
		f.inbox.Add(func(c *state.Changes) { words, loads = len(c.Words), c.Reports })
		return words, loads
	}
	const edges, seconds = 100, 300
	for second := range seconds {
		for i := range edges {
			report := &state.EdgeReport{Edge: edge(i), Sequence: int64(second), Loads: []Load{{Assignment: "a", Interval: time.Second}}}
			other.Topic("load").Set(edge(i).Key(), written(t, message{Report: report}))
		}
		other.Topic("shares").Set(candidateKey, written(t, message{Candidate: &state.Candidate{Second: int64(second)}}))
		other.Topic("shares").Set(backend("web").String(), written(t, message{Decision: &state.Decision{Regions: []state.RegionDecision{{Demand: float64(second)}}}}))
		clock.Step(time.Second)
		if words, _ := pending(); words > 2*maxPendingWords {
			t.Fatalf("after %d s %d words wait", second, words)
		}
	}
	if _, loads := pending(); loads == 0 || loads > maxPendingReports {
		t.Errorf("%d reports wait with their loads", loads)
	}
	f.run()
	got := f.Dump().Replicas["hub-a"]
	if len(got.Edges) != edges || got.Decisions != 1 || got.Candidate.Second != seconds-1 || !got.Heard {
		t.Errorf("it knows %+v", got)
	}
}

// written is what another replica sends.
func written(t *testing.T, m message) []byte {
	t.Helper()
	value, err := write(m)
	testkit.Must(t, err)
	return value
}

// What is known of the other replicas is the same with the last words as with all of them.
func TestLastWordsSayWhatAllSay(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		all := state.NewChanges()
		for i := range 60 {
			edge := Edge{Pool: "us", Region: "us", Node: fmt.Sprint(random.IntN(3))}
			w := state.Word{Replica: fmt.Sprint("hub-", random.IntN(2)), At: time.Unix(int64(i), 0), Kind: state.WordKind(random.IntN(int(state.Withdrawn) + 1))}
			switch w.Kind {
			case state.Reported:
				w.Edge = state.EdgeReport{Edge: edge, Sequence: int64(i)}
				if random.IntN(2) > 0 {
					w.Edge.Loads = []Load{{Assignment: "a"}}
					all.Reports, all.LoadsSize = all.Reports+1, all.LoadsSize+1
				}
			case state.Left:
				w.EdgeKey = edge.Key()
			case state.Stands:
				w.Candidate = state.Candidate{Second: int64(i)}
			case state.Decided, state.Withdrawn:
				w.Backend = backend(fmt.Sprint(random.IntN(2)))
			}
			all.Words = append(all.Words, w)
		}
		last := all
		last.Words = append([]state.Word(nil), all.Words...)
		keepLastWords(&last)
		want, got := newFixture(t), newFixture(t)
		want.state.Apply(all)
		got.state.Apply(last)
		if a, b := want.state.Dump(), got.state.Dump(); !reflect.DeepEqual(a.Replicas, b.Replicas) {
			t.Fatalf("seed %d: %+v, not %+v", seed, b.Replicas, a.Replicas)
		}
		reports := 0
		for _, w := range last.Words {
			if len(w.Edge.Loads) > 0 {
				reports++
			} else if w.Edge.Sequence != 0 {
				t.Fatalf("seed %d: number %d of a report without loads hides those that were left out", seed, w.Edge.Sequence)
			}
		}
		if len(last.Words) >= len(all.Words) || last.Reports != reports || last.LoadsSize != reports {
			t.Fatalf("seed %d: %d words, of them %d reports, counted as %d of %d", seed, len(last.Words), reports, last.Reports, last.LoadsSize)
		}
	}
}
