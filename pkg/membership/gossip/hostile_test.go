package gossip_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"crossway.dev/crossway/internal/testkit/gossipkit"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// evil is what a node with a certificate of member:evil uses to dial by hand.
func evil(t *testing.T, fleet *gossipkit.Fleet) gossip.Config {
	t.Helper()
	return configOf(t, fleet.CA, "spiffe://crossway/member/evil", time.Hour)
}

func configOf(t *testing.T, ca *gossipkit.CA, uri string, life time.Duration) gossip.Config {
	t.Helper()
	source, err := ca.Source(uri, life)
	if err != nil {
		t.Fatal(err)
	}
	return gossip.Config{Name: "member:evil", Fleet: "test", TLS: source, Log: logr.Discard()}
}

func dial(t *testing.T, config gossip.Config, address string, what byte) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return gossip.Dial(ctx, config, address, what)
}

// mustDial dials, also while the other side does not listen yet.
func mustDial(t *testing.T, config gossip.Config, address string, what byte) (c net.Conn) {
	t.Helper()
	await(t, "dial "+address, func() bool {
		var err error
		c, err = dial(t, config, address, what)
		return err == nil
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// isCut waits until the other side closes a connection.
func isCut(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the connection stays open")
	}
}

func TestWhoIsTurnedAway(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	other, err := gossipkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	mustDial(t, evil(t, fleet), hub.Address, gossip.ForBeats) // who is let in
	as := func(c gossip.Config, name membership.Name) gossip.Config { c.Name = name; return c }
	foreign := evil(t, fleet)
	foreign.Fleet = "other"
	for what, config := range map[string]gossip.Config{
		"another member's name":       as(evil(t, fleet), "member:a"),
		"a replica's name":            as(evil(t, fleet), "hub:h1"),
		"no name":                     as(evil(t, fleet), "evil"),
		"another fleet":               foreign,
		"a certificate of no CA":      configOf(t, other, "spiffe://crossway/member/evil", time.Hour),
		"a certificate that ended":    configOf(t, fleet.CA, "spiffe://crossway/member/evil", -time.Second),
		"an edge's certificate":       configOf(t, fleet.CA, "spiffe://crossway/edge/p/eu/z", time.Hour),
		"a replica as a member":       configOf(t, fleet.CA, "spiffe://crossway/hub/h1", time.Hour),
		"a replica as another one":    as(configOf(t, fleet.CA, "spiffe://crossway/hub/h2", time.Hour), "hub:h1"),
		"a replica without a name":    as(configOf(t, fleet.CA, "spiffe://crossway/hub", time.Hour), "hub:h1"),
		"a member under hub's domain": configOf(t, fleet.CA, "spiffe://other/member/evil", time.Hour),
	} {
		for _, purpose := range []byte{gossip.ForBeats, gossip.ForPackets, gossip.ForStream, 'x'} {
			if c, err := dial(t, config, hub.Address, purpose); err == nil {
				_ = c.Close()
				t.Errorf("%s is let in, for %q", what, purpose)
			}
		}
	}
}

func TestABeatOfAnotherNameCutsTheStream(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	for what, b := range map[string]membership.Beat{
		"another name":     {Node: "member:a", Epoch: 1, Seq: 1},
		"a word on itself": {Node: "member:evil", Epoch: 1, Seq: 1, Opinions: []membership.Opinion{{Of: "member:evil"}}},
		"no address":       {Node: "member:evil", Epoch: 1, Seq: 1, Address: "localhost"},
		"too long":         {Node: "member:evil", Epoch: 1, Seq: 1, Address: strings.Repeat("1", 1<<17)},
	} {
		c := mustDial(t, evil(t, fleet), hub.Address, gossip.ForBeats)
		if err := gossip.WriteBeat(c, b); err != nil {
			t.Logf("%s: cut before it was all sent: %v", what, err)
		}
		isCut(t, c)
	}
	if v := hub.Verdicts(); len(v) > 1 {
		t.Errorf("the hub believes it: %v", v)
	}
}

func TestACertificateThatEndsCutsItsConnections(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	mustDial(t, evil(t, fleet), hub.Address, gossip.ForBeats)
	short := configOf(t, fleet.CA, "spiffe://crossway/member/evil", 5*time.Second)
	// Nothing else ends a connection for packets on which nothing comes.
	if c, err := dial(t, short, hub.Address, gossip.ForPackets); err == nil { // else it has ended, on a busy machine
		isCut(t, c)
		if hub.Refused("expired") == 0 {
			t.Error("something else has cut it")
		}
	}
}

// A member whose credential is revoked is cut by the hub, and then by all others.
func TestARevokedMemberIsCutEverywhere(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	var revoked atomic.Bool
	hub := start(t, fleet, "hub:h1", func(c *gossip.Config) {
		c.Authorize = func(name membership.Name, _ *x509.Certificate) error {
			if name == "member:a" && revoked.Load() {
				return errors.New("revoked")
			}
			return nil
		}
	})
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, a, b)
	revoked.Store(true)
	await(t, "the hub has no connection with a", func() bool { return hub.Connections("member:a") == 0 && !hub.Knows("member:a") })
	await(t, "b has no connection with a", func() bool { return b.Connections("member:a") == 0 && !b.Knows("member:a") })
	awaitState(t, hub, "member:a", membership.Silent)
	revoked.Store(false)
	awaitState(t, hub, "member:a", membership.Alive)
	awaitRing(t, hub, a, b)
}

// The roster may become empty: who was in it is not let in any more.
func TestTheLastOfTheRosterIsRevoked(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	var revoked atomic.Bool
	start(t, fleet, "hub:h1", func(c *gossip.Config) {
		c.Advertise = ""
		c.Authorize = func(name membership.Name, _ *x509.Certificate) error {
			if name == "member:b" && revoked.Load() {
				return errors.New("revoked")
			}
			return nil
		}
	})
	a := start(t, fleet, "member:a", undialable)
	start(t, fleet, "member:b", nil)
	await(t, "a knows b", func() bool { return a.Knows("member:b") })
	revoked.Store(true)
	await(t, "a does not know b any more", func() bool { return !a.Knows("member:b") })
}

// message encodes a message of memberlist.
func message(t *testing.T, kind byte, value any) []byte {
	t.Helper()
	var out bytes.Buffer
	out.WriteByte(kind)
	if err := codec.NewEncoder(&out, &codec.MsgpackHandle{}).Encode(value); err != nil {
		t.Fatal(err)
	}
	labelled, err := memberlist.AddLabelHeaderToPacket(out.Bytes(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return labelled
}

// Messages of memberlist, as in its net.go.
const suspectMessage, aliveMessage, deadMessage = 3, 4, 5

type accusation struct {
	Incarnation uint32
	Node, From  string
}

type alive struct {
	Incarnation uint32
	Node        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Vsn         []uint8
}

// Whatever a member forges in the ring, it makes nobody lost, and lets nobody in.
func TestALiarInTheRing(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b, liar := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil), start(t, fleet, "member:evil", nil)
	awaitRing(t, hub, a, b, liar)
	config := evil(t, fleet)
	vsn := []uint8{1, 5, 2, 0, 0, 0}
	lies := [][]byte{
		message(t, suspectMessage, accusation{1 << 30, "member:a", "member:b"}),
		message(t, deadMessage, accusation{1<<32 - 1, "member:a", "member:b"}),
		message(t, deadMessage, accusation{1<<32 - 1, "member:b", "member:b"}), // as if it left
		message(t, aliveMessage, alive{1<<32 - 1, "member:a", net.IPv4(127, 0, 0, 1).To4(), 9, nil, vsn}),
		message(t, aliveMessage, alive{1, "member:ghost", net.IPv4(127, 0, 0, 1).To4(), 9, nil, vsn}),
		{9, 0xff, 0xff}, {}, {244}, []byte("nonsense"),
	}
	for _, victim := range []*gossipkit.Node{hub, a, b} {
		c := mustDial(t, config, victim.Address, gossip.ForPackets)
		for _, lie := range lies {
			if err := gossip.WritePacket(c, lie); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, "the ring of the hub believes it", func() bool { return !hub.IsInRing("member:a") })
	seq := hub.Beat("member:a").Seq
	await(t, "a sends six more Beats", func() bool {
		for _, name := range []membership.Name{"member:a", "member:b"} {
			if v := hub.Verdict(name); v.State != membership.Alive || len(v.Unreached) > 0 {
				t.Fatalf("%s is %+v because of a lie", name, v)
			}
		}
		for _, n := range []*gossipkit.Node{hub, a, b} {
			if n.IsInRing("member:ghost") || n.Knows("member:ghost") {
				t.Fatalf("%s has member:ghost in its ring", n.Name)
			}
		}
		return hub.Beat("member:a").Seq > seq+6
	})
	if hub.Refused("not in the roster") == 0 {
		t.Error("no node was refused")
	}
	// A dead member is lost all the same.
	b.Kill()
	awaitState(t, hub, "member:b", membership.Lost)
}

// Who once had a member's credential leaves nothing behind that silences its agent.
func TestALastBeatSilencesNobody(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a := start(t, fleet, "member:a", nil)
	awaitRing(t, hub, a)
	thief := configOf(t, fleet.CA, "spiffe://crossway/member/a", time.Hour)
	thief.Name = "member:a"
	year := uint64(time.Now().Add(364 * 24 * time.Hour).UnixNano())
	for _, last := range []membership.Beat{
		{Node: "member:a", Epoch: math.MaxUint64, Seq: math.MaxUint64},
		{Node: "member:a", Epoch: hub.Beat("member:a").Epoch, Seq: math.MaxUint64},
		{Node: "member:a", Epoch: year, Seq: math.MaxUint64},
	} {
		c := mustDial(t, thief, hub.Address, gossip.ForBeats)
		if err := gossip.WriteBeat(c, last); err != nil {
			t.Fatal(err)
		}
		await(t, "the hub has taken or refused it", func() bool {
			return hub.Beat("member:a").Seq == math.MaxUint64 || hub.Refused("malformed") > 0
		})
		_ = c.Close()
		await(t, "a is heard again", func() bool {
			b := hub.Beat("member:a")
			return b.Seq < math.MaxUint64 && b.Seq > 3 && hub.Verdict("member:a").State == membership.Alive
		})
	}
}

// An agent that names another one's address is not at that address.
func TestAnAddressIsBelievedOnceItAnswersUnderTheName(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a := start(t, fleet, "member:a", nil)
	awaitRing(t, hub, a)
	c := mustDial(t, evil(t, fleet), hub.Address, gossip.ForBeats)
	if err := gossip.WriteBeat(c, membership.Beat{Node: "member:evil", Epoch: 1, Seq: 1, Address: a.Address}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, hub, "member:evil", membership.Alive)
	seq := hub.Beat("member:a").Seq
	await(t, "the hub has had time to try", func() bool { return hub.Beat("member:a").Seq > seq+4 })
	if hub.Knows("member:evil") {
		t.Error("the hub sends others to an address where another node is")
	}
}

// Who sends more than a node takes is not served, and holds up nobody.
func TestAFloodOfPacketsIsDropped(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	c := mustDial(t, evil(t, fleet), hub.Address, gossip.ForPackets)
	var many bytes.Buffer
	for range 5000 {
		if err := gossip.WritePacket(&many, []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write(many.Bytes()); err != nil {
		t.Fatal(err)
	}
	await(t, "packets are dropped", func() bool { return hub.Dropped("rate") > 1000 })
	if err := gossip.WritePacket(c, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	isCut(t, c)
}

// Who dials again has no new burst of packets, nor of Beats.
func TestAFloodOverManyConnectionsIsDropped(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	config := evil(t, fleet)
	for round := range uint64(8) {
		c := mustDial(t, config, hub.Address, gossip.ForPackets)
		for range 1000 {
			if err := gossip.WritePacket(c, []byte("nonsense")); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "the packets are read", func() bool { return hub.Dropped("malformed")+hub.Dropped("rate") == 1000*(round+1) })
	}
	if hub.Dropped("rate") == 0 {
		t.Error("8000 packets are taken")
	}
	for seq := uint64(1); hub.Refused("rate") == 0; {
		if seq > 3000 {
			t.Fatal("3000 Beats are taken")
		}
		c := mustDial(t, config, hub.Address, gossip.ForBeats)
		for range 95 {
			if gossip.WriteBeat(c, membership.Beat{Node: "member:evil", Epoch: 1, Seq: seq}) == nil {
				seq++
			}
		}
		await(t, "the Beats are read", func() bool { return hub.Beat("member:evil").Seq == seq-1 || hub.Refused("rate") > 0 })
		_ = c.Close()
	}
}

// memberlist sends from the goroutine that reads, so a node that takes nothing must not
// hold it up: packets are dropped and counted.
func TestASlowNodeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a, b := start(t, fleet, "member:a", nil), start(t, fleet, "member:b", nil)
	awaitRing(t, hub, a, b)
	fleet.Cut(func(x, y membership.Name) bool { return x == "member:a" || y == "member:a" }) // dials wait
	to := memberlist.Address{Name: "member:a", Addr: a.Address}
	done := make(chan error, 1)
	go func() {
		for range 10_000 {
			if _, err := hub.Transport().WriteToAddress([]byte("packet"), to); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a node that takes nothing holds up who sends")
	}
	if hub.Dropped("full") == 0 {
		t.Error("nothing was counted as dropped")
	}
	for _, to := range []memberlist.Address{{Name: "member:a", Addr: "10.0.0.1:22"}, {Name: "member:b", Addr: a.Address}, {Name: "", Addr: b.Address}} {
		if _, err := hub.Transport().DialAddressTimeout(to, time.Second); err == nil {
			t.Errorf("%s is dialled", to.String())
		}
	}
}

// memberlist writes a line for each bad message.
func TestALiarDoesNotFillTheLog(t *testing.T) {
	var lines []string
	log := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{Verbosity: 1})
	w := gossip.NewLogWriter(log)
	now := time.Now()
	w.SetNow(func() time.Time { return now })
	for i := range 10_000 {
		for _, level := range []string{"[ERR]", "[WARN]", "[DEBUG]"} {
			fmt.Fprintf(w, "%s memberlist: line %d of a liar\n", level, i)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d lines of 30,000, want one of each level that is on: %q", len(lines), lines[:min(len(lines), 5)])
	}
	now = now.Add(time.Minute)
	fmt.Fprint(w, "[ERR] memberlist: later\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "later") || !strings.Contains(last, "9999") {
		t.Errorf("want the later line and how many were left out, have %q", last)
	}
	w.Close()
	before := len(lines)
	now = now.Add(time.Minute)
	fmt.Fprint(w, "[ERR] memberlist: after its Shutdown\n")
	if len(lines) != before {
		t.Errorf("memberlist logs after its Shutdown: %q", lines[before:])
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, `"level"=1`) }) {
		t.Errorf("errors of memberlist are for who debugs: %q", lines)
	}
}
