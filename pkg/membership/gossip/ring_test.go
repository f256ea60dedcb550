package gossip_test

import (
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"crossway.dev/crossway/internal/testkit/gossipkit"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// Nodes wait more than they compute, so more tests run at once than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	m.Run()
}

func newFleet(t *testing.T) *gossipkit.Fleet {
	t.Helper()
	fleet, err := gossipkit.New(t.Context(), testr.NewWithOptions(t, testr.Options{Verbosity: 1}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Wait)
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

// undialable is an agent that nobody can dial.
func undialable(c *gossip.Config) { c.Listen, c.Advertise = "", "" }

// await waits until something is so. Two minutes are for a busy machine.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// awaitRing waits until each node has all in its ring and has reached them itself.
func awaitRing(t *testing.T, nodes ...*gossipkit.Node) {
	t.Helper()
	await(t, "each node has all in its ring, and has reached them", func() bool {
		return !slices.ContainsFunc(nodes, func(n *gossipkit.Node) bool {
			return n.RingSize() != len(nodes) || slices.ContainsFunc(nodes, func(other *gossipkit.Node) bool { return n != other && !n.HasReached(other.Name) })
		})
	})
}

func awaitState(t *testing.T, hub *gossipkit.Node, name membership.Name, state membership.State) membership.Verdict {
	t.Helper()
	await(t, string(name)+" is "+string(state), func() bool { return hub.Verdict(name).State == state })
	return hub.Verdict(name)
}

func TestADeadAgentIsLostByASecondOpinion(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, a, b)
	a.Kill()
	if v := awaitState(t, hub, "member:a", membership.Lost); !slices.Contains(v.Unreached, "member:b") {
		t.Errorf("want the word of b, have %+v", v)
	}
	// It starts again at another address, before or after the ring forgot it.
	a = start(t, fleet, "member:a", nil)
	awaitState(t, hub, "member:a", membership.Alive)
	awaitRing(t, hub, a, b)
}

// Nobody else can try an agent that nobody can dial: only the hub says that it is silent.
func TestAnAgentThatNobodyCanDialIsOnlySilent(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", undialable), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, b)
	awaitState(t, hub, "member:a", membership.Alive)
	a.Kill()
	if v := awaitState(t, hub, "member:a", membership.Silent); len(v.Unreached) > 0 {
		t.Errorf("nobody could try a, and yet: %+v", v)
	}
	if b.Knows("member:a") || hub.Knows("member:a") {
		t.Error("an agent without an address is in the roster")
	}
}

func TestAnAgentThatOnlyOthersReachIsUnheard(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, a, b)
	fleet.Cut(func(x, y membership.Name) bool {
		return (x.IsHub() && y == "member:a") || (y.IsHub() && x == "member:a")
	})
	if v := awaitState(t, hub, "member:a", membership.Unheard); !slices.Contains(v.Reached, "member:b") {
		t.Errorf("want the word of b, have %+v", v)
	}
	fleet.Cut(nil)
	awaitState(t, hub, "member:a", membership.Alive)
}

func TestAnAgentThatStopsHasLeft(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, a, b)
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	awaitState(t, hub, "member:a", membership.Left)
	await(t, "the ring is without a", func() bool { return hub.RingSize() == 2 && b.RingSize() == 2 })
	await(t, "b does not know a any more, or who has its certificate", func() bool { return !hub.Knows("member:a") })
	start(t, fleet, "member:a", nil)
	awaitState(t, hub, "member:a", membership.Alive)
}

// memberlist forgets the dead, so both sides of a split would stay alone for ever.
func TestAHealedSplitIsWholeAgain(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	h1, h2 := start(t, fleet, "hub:h1", nil), start(t, fleet, "hub:h2", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	nodes := []*gossipkit.Node{h1, h2, a, b}
	awaitRing(t, nodes...)
	left := map[membership.Name]bool{"hub:h1": true, "member:a": true}
	fleet.Cut(func(x, y membership.Name) bool { return left[x] != left[y] })
	await(t, "each side is alone", func() bool {
		return !slices.ContainsFunc(nodes, func(n *gossipkit.Node) bool { return n.RingSize() != 2 })
	})
	// While the ring remembers the dead, it heals by itself.
	a1, b1 := h1.Beat("member:a").Seq, h2.Beat("member:b").Seq
	await(t, "the ring has forgotten the dead", func() bool { return h1.Beat("member:a").Seq > a1+15 && h2.Beat("member:b").Seq > b1+15 })
	fleet.Cut(nil)
	awaitRing(t, nodes...)
	for _, hub := range nodes[:2] {
		for _, n := range nodes {
			awaitState(t, hub, n.Name, membership.Alive)
		}
	}
}

// Replicas hear what others hear: an agent has one stream, to any of them.
func TestReplicasShareWhatTheyHear(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	h1, h2 := start(t, fleet, "hub:h1", nil), start(t, fleet, "hub:h2", nil)
	start(t, fleet, "member:a", undialable)
	for _, hub := range []*gossipkit.Node{h1, h2} {
		awaitState(t, hub, "member:a", membership.Alive)
	}
	first, second := h1, h2
	if h1.Connections("member:a") == 0 {
		first, second = h2, h1
	}
	first.Kill()
	await(t, "the agent speaks to the other replica", func() bool { return second.Connections("member:a") > 0 })
	awaitState(t, second, "member:a", membership.Alive)
}

// An agent whose clock was set back starts with an older epoch than the hub knows.
func TestAClockThatWasSetBackSilencesNobody(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	ahead := uint64(time.Now().Add(24 * time.Hour).UnixNano())
	hub.Hear(membership.Beat{Node: "member:a", Epoch: ahead, Seq: 7})
	start(t, fleet, "member:a", undialable)
	await(t, "a speaks with a newer epoch", func() bool { return hub.Beat("member:a").Epoch > ahead })
}

// What a replica is asked for from outside may wait for who tells it what others heard.
func TestPeersMayWaitForHear(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	var link sync.Mutex // as a link between replicas may have one
	start(t, fleet, "hub:h1", func(c *gossip.Config) {
		c.Peers = func() []gossip.Peer {
			link.Lock()
			defer link.Unlock()
			return nil
		}
	})
	second := start(t, fleet, "hub:h2", func(c *gossip.Config) {
		c.Peers = func() []gossip.Peer {
			link.Lock()
			defer link.Unlock()
			return []gossip.Peer{{Name: "hub:h1", Address: "127.0.0.1:9"}}
		}
	})
	for seq := range uint64(2000) {
		link.Lock()
		second.Hear(membership.Beat{Node: "member:a", Epoch: 1, Seq: seq})
		link.Unlock()
	}
	await(t, "the replica judges what it heard", func() bool { return !second.Verdict("member:a").Heard.IsZero() })
}
