package gossip_test

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"crossway.dev/crossway/pkg/membership/gossip"
)

// Messages of memberlist, as in its net.go.
const (
	pushPullMessage, compoundMessage, compressMessage, checkedMessage = 6, 7, 9, 12

	pingMessage, userMessage = 0, 8
)

type compressed struct {
	Algo byte
	Buf  []byte
}

func bodyOf(t *testing.T, kind byte, value any) []byte {
	t.Helper()
	labelled := message(t, kind, value)
	return labelled[2+len("test"):]
}

func zeros(t *testing.T, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := lzw.NewWriter(&out, lzw.LSB, 8)
	if _, err := w.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compound(parts ...[]byte) []byte {
	out := []byte{compoundMessage, byte(len(parts))}
	for _, p := range parts {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
	}
	return append(out, slices.Concat(parts...)...)
}

func labelled(b []byte) []byte { return append(append([]byte{244, 4}, "test"...), b...) }

// A member makes the hub, or another member's agent, work and take memory for what is not
// there: in a packet, or on a stream.
func TestBombsOfMessages(t *testing.T) {
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	a := start(t, fleet, "member:a", nil)
	awaitRing(t, hub, a)
	config := evil(t, fleet)
	bomb := bodyOf(t, compressMessage, compressed{0, zeros(t, 900_000)})
	packets := [][]byte{
		labelled(bomb), labelled(compound(bomb)), labelled(compound(compound(bomb))),
		labelled(append([]byte{pingMessage, 0x81, 0xa1, 'x', 0xc9}, 0xff, 0xff, 0xff, 0xff, 1)), // an extension of 4 GB
		labelled([]byte{pingMessage, 0x81, 0xdb, 0xff, 0xff, 0xff, 0xff}),                       // a text of 4 GB
		labelled([]byte{pingMessage, 0xdf, 0xff, 0xff, 0xff, 0xff}),
		labelled(append([]byte{pingMessage}, bytes.Repeat([]byte{0x91}, 1000)...)),
	}
	streams := [][]byte{
		labelled(bodyOf(t, pushPullMessage, map[string]int{"Nodes": 1 << 20, "UserStateLen": 0})),
		labelled(bodyOf(t, pushPullMessage, map[string]int{"Nodes": 0, "UserStateLen": 20 << 20})),
		labelled(bodyOf(t, userMessage, map[string]int{"UserMsgLen": 20 << 20})),
		labelled(bodyOf(t, compressMessage, compressed{0, zeros(t, 30_000_000)})),
	}
	before := allocated()
	seq := hub.Beat("member:a").Seq
	c := mustDial(t, config, hub.Address, gossip.ForPackets)
	for _, packet := range packets {
		if len(packet) > 2048 {
			t.Fatalf("a packet of %d bytes", len(packet))
		}
		for range 50 {
			if err := gossip.WritePacket(c, packet); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		for _, stream := range streams {
			s := mustDial(t, config, hub.Address, gossip.ForStream)
			_, _ = s.Write(stream) // which is cut before all of it is read
			if err := s.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Read(make([]byte, 1))
		}
	}
	await(t, "a sends more Beats", func() bool { return hub.Beat("member:a").Seq > seq+3 })
	if grown := allocated() - before; grown > 32<<20 {
		t.Fatalf("%d MB were allocated for it", grown>>20)
	}
	await(t, "the packets are dropped", func() bool { return hub.Dropped("malformed") >= uint64(50*len(packets)) })
	awaitRing(t, hub, a)
}

// Streams of one node are bounded: each may bring thousands of nodes.
func TestAFloodOfStreamsIsDropped(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t)
	hub := start(t, fleet, "hub:h1", nil)
	mustDial(t, evil(t, fleet), hub.Address, gossip.ForStream)
	for range 60 {
		if c, err := dial(t, evil(t, fleet), hub.Address, gossip.ForStream); err == nil {
			_ = c.Close()
		}
	}
	await(t, "streams are dropped", func() bool { return hub.Dropped("streams") >= 10 })
	a := start(t, fleet, "member:a", nil)
	awaitRing(t, hub, a)
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// What nodes of a fleet send each other passes; what is cut off at any byte does not.
func TestWhatMessagesPass(t *testing.T) {
	node := alive{1, "member:a", []byte{10, 0, 0, 1}, 18002, bytes.Repeat([]byte{1}, 512), []uint8{1, 5, 2, 0, 0, 0}}
	one := bodyOf(t, aliveMessage, node)
	crc := append([]byte{checkedMessage, 1, 2, 3, 4}, one...)
	for _, packet := range [][]byte{one, labelled(one), labelled(compound(one, one)), labelled(crc), bodyOf(t, suspectMessage, accusation{1 << 30, "member:a", "member:b"})} {
		if err := gossip.CheckPacket(packet); err != nil {
			t.Errorf("%q: %v", packet, err)
		}
		if gossip.CheckPacket(packet[:len(packet)-1]) == nil {
			t.Errorf("%q passes without its last byte", packet)
		}
	}
	var state bytes.Buffer
	state.Write(labelled(bodyOf(t, pushPullMessage, map[string]any{"Nodes": 2, "UserStateLen": 0, "Join": true})))
	for range 2 {
		if err := codec.NewEncoder(&state, &codec.MsgpackHandle{}).Encode(node); err != nil {
			t.Fatal(err)
		}
	}
	for n := range state.Len() {
		if _, err := gossip.ReadMessage(bytes.NewReader(state.Bytes()[:n]), false); err == nil {
			t.Fatalf("%d bytes of %d pass", n, state.Len())
		}
	}
	got, err := gossip.ReadMessage(strings.NewReader(state.String()+"more"), false)
	if err != nil || !bytes.Equal(got, state.Bytes()) {
		t.Errorf("%v, %d bytes of %d", err, len(got), state.Len())
	}
}
