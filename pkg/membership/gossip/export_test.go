package gossip

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"time"

	"crossway.dev/crossway/pkg/membership"
)

// Purposes of connections, for those who dial by hand.
const (
	ForPackets = byte(forPackets)
	ForStream  = byte(forStream)
	ForBeats   = byte(forBeats)
)

// Names for tests.
var (
	NewLogWriter = newLogWriter
	CheckPacket  = checkPacket
	ReadMessage  = readMessage
)

// SetNow gives a log writer another clock.
func (w *logWriter) SetNow(now func() time.Time) { w.now = now }

// Close is what the end of a node does.
func (w *logWriter) Close() { w.close() }

// HasReached is whether this node has reached another one itself, where it is now.
func (n *Node) HasReached(name membership.Name) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tries[name] != nil && n.tries[name].reached == n.addressOf(name)
}

// Knows is whether a node is in this one's roster.
func (n *Node) Knows(name membership.Name) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.roster[name] != ""
}

// Beat is the newest Beat of a node that this replica has.
func (n *Node) Beat(name membership.Name) membership.Beat {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table[name].Beat
}

// IsInRing is whether memberlist takes a node for one that lives.
func (n *Node) IsInRing(name membership.Name) bool {
	for _, m := range n.ring.Load().Members() {
		if m.Name == string(name) {
			return true
		}
	}
	return false
}

// Dropped and Refused count by reason.
func (n *Node) Dropped(reason string) uint64 { return n.metrics.dropped.all()[reason] }

// Refused counts connections and nodes.
func (n *Node) Refused(reason string) uint64 { return n.metrics.refused.all()[reason] }

// Connections counts the open connections with a node.
func (n *Node) Connections(name membership.Name) int { return n.peers.countOf(name) }

// Transport is the node's, as memberlist has it.
func (n *Node) Transport() *transport { return n.packets }

// Dial opens a connection as a node would, with any name and certificate.
func Dial(ctx context.Context, config Config, address string, what byte) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c, _, err := identify(ctx, config, raw, purpose(what), func(hello, *x509.Certificate) error { return nil })
	if err != nil {
		_ = raw.Close()
	}
	return c, err
}

// WriteBeat writes a Beat, and WritePacket a packet.
func WriteBeat(w io.Writer, b membership.Beat) error { return writeFrame(w, b) }

// WritePacket writes a packet of memberlist.
func WritePacket(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// Tried takes the result of a try over, and says whether a Beat is due at once.
func (n *Node) Tried(name membership.Name, wanted, reached bool) (due bool) {
	n.mu.Lock()
	n.roster[name] = "192.0.2.1:18002"
	if wanted {
		n.want(name, time.Now())
	}
	n.mu.Unlock()
	n.tried(Peer{name, "192.0.2.1:18002"}, reached)
	select {
	case <-n.kick:
		return true
	default:
		return false
	}
}
