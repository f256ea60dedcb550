package gossip_test

import (
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"crossway.dev/crossway/internal/testkit/gossipkit"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

func newFleet(t *testing.T) *gossipkit.Fleet {
	t.Helper()
	fleet, err := gossipkit.New(t.Context(), testr.NewWithOptions(t, testr.Options{Verbosity: 1}))
	if err != nil {
		t.Fatal(err)
	}
	return fleet
}

func start(t *testing.T, fleet *gossipkit.Fleet, name membership.Name, change func(*gossip.Config)) *gossipkit.Node {
	t.Helper()
	n, err := fleet.Start(name, change)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// await waits until something is so; half a minute is for a busy machine.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestADeadAgentIsLostByASecondOpinion(t *testing.T) {
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	await(t, "the ring has all three", func() bool { return a.RingSize() == 3 && b.RingSize() == 3 && hub.RingSize() == 3 })
	await(t, "b has reached a", func() bool { return b.HasReached("member:a") })
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "a is lost", func() bool { return hub.Verdict("member:a").State == membership.Lost })
	if v := hub.Verdict("member:a"); !slices.Contains(v.Unreached, "member:b") {
		t.Errorf("want the word of b, have %+v", v)
	}
}
