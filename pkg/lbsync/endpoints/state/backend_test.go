package state

import (
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// loaded is a backend with 2 pods of 10 requests per second in us and in eu, and clients in us. second is one more second of
// requests that two edges count; it says whether the shares moved.
func loaded() (b *backendState, second func(one, two uint64) bool) {
	b = newBackendState(fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}})
	b.policy.Rate, b.policy.Mode = 10, model.Waterfall
	c := splitContext{
		now:     time.Unix(1_000_000, 0),
		members: []traffic.Capacity{{Cluster: "eu-west", Region: "eu", Ready: 2, Scaler: 1}, {Cluster: "us-west", Region: "us", Ready: 2, Scaler: 1}},
		regions: []region{{name: "us", edges: []string{"a", "b"}}},
	}
	return b, func(one, two uint64) bool {
		c.now = c.now.Add(time.Second)
		for edge, n := range map[string]uint64{"a": one, "b": two} {
			b.region("us").demand.Observe(traffic.Sample{Edge: edge, End: c.now, Interval: time.Second, Issued: n, Succeeded: n})
		}
		return b.resplit(c)
	}
}

// The first report of a rise covers a part of it. What is missing follows with the next one.
func TestALargeMoveIsCorrectedAtOnce(t *testing.T) {
	b, second := loaded()
	for range 15 {
		second(0, 0)
	}
	second(14, 14)
	if got := b.sharesOf("us").PartsOf("us-west"); got != 714_286 {
		t.Fatalf("at 28 rps us-west has %d parts", got)
	}
	second(15, 15)
	if got := b.sharesOf("us").PartsOf("us-west"); got != 666_667 {
		t.Errorf("a second later us-west has %d parts, want those of 30 rps", got)
	}
}

// Clients that change from one edge to another between two reports are counted by both edges, or by none, until the
// estimate's window has passed. This alone moves nothing; a small change of demand that stays does.
func TestSmallMovesWait(t *testing.T) {
	b, second := loaded()
	for range 15 {
		second(15, 15)
	}
	if got := b.sharesOf("us").PartsOf("us-west"); got != 666_667 {
		t.Fatalf("at 30 rps us-west has %d parts", got)
	}
	moves := 0
	for i := range 40 { // b's clients go to a, which counts them before b misses them, and come back the same way
		one, two := uint64(15), uint64(15)
		switch i % 10 {
		case 2:
			one = 22
		case 3, 4, 5:
			one, two = 22, 8
		}
		if second(one, two) {
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
