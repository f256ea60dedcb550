package gossip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"

	"crossway.dev/crossway/pkg/membership"
)

// Limits of what other nodes may send, and of what waits here.
const (
	// maxPacket is the size of a packet: memberlist's 1400 bytes, a label and a checksum.
	maxPacket = 2048
	// packetRate is how many packets a second a node may send after packetBurst.
	// A node at rest sends about two a second, and some hundreds when many change.
	packetRate, packetBurst = 200, 1000
	// maxStream is how many bytes a message on a stream may have: a push/pull has 100 bytes a node.
	maxStream = 1 << 20
	// streamRate is how many streams a second a node may open after streamBurst. It opens one
	// in half a minute, and one for each packet that is not answered.
	streamRate, streamBurst = 2, 20
	// maxQueued packets wait for one node, and maxReceived for memberlist.
	maxQueued, maxReceived = 64, 1024
	// idleTime is how long a connection for packets stays without packets. A node of a
	// fleet of 100 is tried by each other one every 100 s.
	idleTime = 3 * time.Minute
	// dialTime and writeTime bound how long a node that answers nothing is waited for.
	dialTime, writeTime = 2 * time.Second, 2 * time.Second
)

// transport is how memberlist talks: packets over connections that are kept, each
// stream over one of its own. It never blocks memberlist, which sends from the
// goroutine that reads: what does not fit is dropped, and counted.
type transport struct {
	node     *Node
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	shutdown chan struct{}
	once     sync.Once
	writers  sync.WaitGroup

	mu    sync.Mutex // guards the rest
	boxes map[membership.Name]chan []byte
	rates map[sender]*rate.Limiter
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(n *Node) *transport {
	return &transport{node: n, packets: make(chan *memberlist.Packet, maxReceived), streams: make(chan net.Conn, 16),
		shutdown: make(chan struct{}), boxes: map[membership.Name]chan []byte{}, rates: map[sender]*rate.Limiter{}}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a, err := netip.ParseAddrPort(t.node.config.Advertise)
	if err != nil {
		return nil, 0, err
	}
	return a.Addr().AsSlice(), int(a.Port()), nil
}

var errNoName = errors.New("a node is dialled under its name")

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNoName }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoName }

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	t.once.Do(func() { close(t.shutdown) })
	return nil
}

// WriteToAddress implements memberlist.NodeAwareTransport. Names and addresses in
// packets may be forged, so only those of the roster are written to.
func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	peer := Peer{membership.Name(to.Name), to.Addr}
	if !t.node.isInRoster(peer) {
		t.node.metrics.dropped.Add("unknown")
		return time.Now(), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	box := t.boxes[peer.Name]
	if box == nil {
		box = make(chan []byte, maxQueued)
		t.boxes[peer.Name] = box
		t.writers.Add(1)
		go t.write(peer.Name, box)
	}
	select {
	case box <- bytes.Clone(b):
	default:
		t.node.metrics.dropped.Add("full")
	}
	return time.Now(), nil
}

// write sends the packets for one node until there are none for a while.
func (t *transport) write(name membership.Name, box chan []byte) {
	defer t.writers.Done()
	var c *connection
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		select {
		case <-t.shutdown:
			return
		case b := <-box:
			var err error
			if c, err = t.send(c, name, b); err != nil {
				t.node.metrics.dropped.Add("unreachable")
				t.node.config.Log.V(2).Info("could not send a packet", "node", name, "error", err.Error())
			}
			idle.Reset(idleTime)
		case <-idle.C:
			t.mu.Lock()
			if len(box) == 0 {
				delete(t.boxes, name)
				t.mu.Unlock()
				if c != nil && c.dialled {
					_ = c.Close()
				}
				return
			}
			t.mu.Unlock()
			idle.Reset(idleTime)
		}
	}
}

// send writes a packet to an open connection with a node, or to a new one.
func (t *transport) send(c *connection, name membership.Name, b []byte) (*connection, error) {
	if c == nil || c.isClosed() {
		if c = t.node.peers.packetsWith(name); c == nil {
			ctx, cancel := context.WithTimeout(context.Background(), dialTime)
			defer cancel()
			var err error
			if c, err = t.node.dial(ctx, name, forPackets); err != nil {
				return nil, err
			}
			t.read(c)
		}
	}
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b)))
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return nil, err
	}
	if _, err := c.Write(append(frame, b...)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// read passes the packets of a connection on until it ends.
func (t *transport) read(c *connection) {
	t.writers.Add(1)
	go func() {
		defer t.writers.Done()
		defer c.Close() //nolint:errcheck // it may be closed already
		limit := t.limit(sender{c.peer, forPackets}, packetRate, packetBurst)
		for {
			b, err := readFrame(c, 2, maxPacket)
			if err != nil {
				return
			}
			if !limit.Allow() {
				t.node.metrics.dropped.Add("rate")
				continue
			}
			if err := checkPacket(b); err != nil {
				t.node.metrics.dropped.Add("malformed")
				continue
			}
			select {
			case t.packets <- &memberlist.Packet{Buf: b, From: c.RemoteAddr(), Timestamp: time.Now()}:
			case <-t.shutdown:
				return
			default:
				t.node.metrics.dropped.Add("received")
			}
		}
	}()
}

// readFrame reads bytes after their number, which has width bytes.
func readFrame(r io.Reader, width, most int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[4-width:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size > most {
		return nil, fmt.Errorf("a message of %d bytes, more than %d", size, most)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	peer := Peer{membership.Name(to.Name), to.Addr}
	if !t.node.isInRoster(peer) {
		t.node.metrics.dropped.Add("unknown")
		return nil, fmt.Errorf("%s at %s is not in the roster", to.Name, to.Addr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := t.node.dial(ctx, peer.Name, forStream)
	if err != nil {
		return nil, err
	}
	return &stream{connection: c}, nil
}

// take gives a connection that was dialled by another node to memberlist.
func (t *transport) take(c *connection) {
	if c.purpose == forPackets {
		t.read(c)
		return
	}
	if !t.limit(sender{c.peer, forStream}, streamRate, streamBurst).Allow() {
		t.node.metrics.dropped.Add("streams")
		_ = c.Close()
		return
	}
	select {
	case t.streams <- &stream{connection: c}:
	default:
		t.node.metrics.dropped.Add("streams")
		_ = c.Close()
	}
}

// sender is a node that sends for one purpose.
type sender struct {
	name membership.Name
	what purpose
}

// limit is the rate of a sender over all of its connections: who dials again has no more.
// Nodes are those that are let in, so there are few.
func (t *transport) limit(from sender, perSecond rate.Limit, burst int) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rates[from] == nil {
		t.rates[from] = rate.NewLimiter(perSecond, burst)
	}
	return t.rates[from]
}

// stream is a connection that brings one message. memberlist gets it once all of it has come
// and was checked.
type stream struct {
	*connection
	message io.Reader
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	if s.message == nil {
		message, err := readMessage(s.connection, s.dialled)
		if err != nil {
			s.all.metrics.dropped.Add("malformed")
			return 0, err
		}
		s.message = bytes.NewReader(message)
	}
	return s.message.Read(b)
}

func (c *connection) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}
