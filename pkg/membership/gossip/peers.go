package gossip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/membership"
)

// mostOf is how many connections one node may have here of a purpose. The oldest makes
// room for a new one, because it may be dead.
var mostOf = map[purpose]int{forPackets: 2, forStream: 4, forTry: 4, forBeats: 1}

// userTimeout is how long the kernel tries to get bytes to a peer that vanished. By
// default that takes 15 minutes, in which a connection swallows every packet.
const userTimeout = 5 * time.Second

// peers are the open connections whose other side is known.
type peers struct {
	config  Config
	metrics *metrics
	// admit returns why a node is not let in, after its certificate was verified.
	admit func(membership.Name, *x509.Certificate) error

	mu     sync.Mutex // guards the rest
	closed bool
	open   map[membership.Name][]*connection // oldest first
	// leaves has the certificate that each node showed last.
	leaves map[membership.Name]*x509.Certificate
}

// connection is a TLS connection with a node. It ends with the node's certificate.
type connection struct {
	*tls.Conn
	peer    membership.Name
	purpose purpose
	leaf    *x509.Certificate
	dialled bool
	expiry  *time.Timer
	all     *peers
	once    sync.Once
	done    chan struct{}
}

func newPeers(config Config, m *metrics) *peers {
	return &peers{config: config, metrics: m, open: map[membership.Name][]*connection{}, leaves: map[membership.Name]*x509.Certificate{}}
}

// errOther: somebody else answers at a node's address.
var errOther = errors.New("another node answers there")

// dial opens a connection to a node, which must show that node's certificate. Without
// a name it must be a replica of the hub.
func (p *peers) dial(ctx context.Context, to Peer, what purpose) (*connection, error) {
	raw, err := p.config.Dial(ctx, "tcp", to.Address)
	if err != nil {
		return nil, err
	}
	c, err := p.identified(ctx, raw, what, func(other hello, leaf *x509.Certificate) error {
		if other.name != to.Name && (to.Name != "" || !other.name.IsHub()) {
			return fmt.Errorf("%w: %s instead of %s", errOther, other.name, to.Name)
		}
		return p.admit(other.name, leaf)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// accept finds out who dialled.
func (p *peers) accept(ctx context.Context, raw net.Conn) (*connection, error) {
	return p.identified(ctx, raw, 0, func(other hello, leaf *x509.Certificate) error {
		if _, ok := mostOf[other.purpose]; !ok {
			return fmt.Errorf("unknown purpose %q", other.purpose)
		}
		return p.admit(other.name, leaf)
	})
}

func (p *peers) identified(ctx context.Context, raw net.Conn, wanted purpose, allow func(hello, *x509.Certificate) error) (*connection, error) {
	if err := setUserTimeout(raw); err != nil {
		_ = raw.Close()
		return nil, err
	}
	secured, other, err := identify(ctx, p.config, &counted{Conn: raw, metrics: p.metrics}, wanted, allow)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := &connection{Conn: secured, peer: other.name, purpose: other.purpose, leaf: secured.ConnectionState().PeerCertificates[0],
		dialled: wanted != 0, all: p, done: make(chan struct{})}
	if !p.add(c) {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p *peers) add(c *connection) bool {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	p.leaves[c.peer] = c.leaf
	c.expiry = time.AfterFunc(time.Until(c.leaf.NotAfter), func() { p.metrics.refused.Add("expired"); _ = c.Close() })
	var oldest *connection
	same := 0
	for _, o := range p.open[c.peer] {
		if o.purpose == c.purpose && o.dialled == c.dialled {
			same++
			if oldest == nil {
				oldest = o
			}
		}
	}
	p.open[c.peer] = append(p.open[c.peer], c)
	p.mu.Unlock()
	if same >= mostOf[c.purpose] {
		_ = oldest.Close()
	}
	return true
}

// Close implements net.Conn.
func (c *connection) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.done)
		c.all.mu.Lock()
		if c.expiry != nil {
			c.expiry.Stop()
		}
		rest := slices.DeleteFunc(c.all.open[c.peer], func(o *connection) bool { return o == c })
		if len(rest) == 0 {
			delete(c.all.open, c.peer)
		} else {
			c.all.open[c.peer] = rest
		}
		c.all.mu.Unlock()
		// The raw connection: a close_notify would wait for a peer that reads nothing.
		err = c.Conn.NetConn().Close()
	})
	return err
}

// packetsWith is the newest connection for packets with a node, whoever dialled it.
func (p *peers) packetsWith(name membership.Name) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range slices.Backward(p.open[name]) {
		if c.purpose == forPackets {
			return c
		}
	}
	return nil
}

// cut closes the connections of nodes that are not admitted any more, and returns the
// nodes whose last certificate is not.
func (p *peers) cut() []membership.Name {
	p.mu.Lock()
	leaves := maps.Clone(p.leaves)
	var all []*connection
	for _, connections := range p.open {
		all = append(all, connections...)
	}
	p.mu.Unlock()
	for _, c := range all {
		if p.admit(c.peer, c.leaf) != nil {
			p.metrics.refused.Add("revoked")
			_ = c.Close()
		}
	}
	var names []membership.Name
	for name, leaf := range leaves {
		if p.admit(name, leaf) != nil {
			names = append(names, name)
		}
	}
	return names
}

// forget drops the certificates of nodes that have no connection and are not kept.
func (p *peers) forget(keep func(membership.Name) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.leaves, func(name membership.Name, _ *x509.Certificate) bool { return len(p.open[name]) == 0 && !keep(name) })
}

// closeBut closes all connections but those of a purpose, and opens no more.
func (p *peers) closeBut(kept purpose) {
	p.mu.Lock()
	p.closed = true
	var all []*connection
	for _, connections := range p.open {
		all = append(all, connections...)
	}
	p.mu.Unlock()
	for _, c := range all {
		if c.purpose != kept {
			_ = c.Close()
		}
	}
}

func (p *peers) close() { p.closeBut(0) }

func (p *peers) countOf(name membership.Name) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open[name])
}

func (p *peers) count() (count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, connections := range p.open {
		count += len(connections)
	}
	return count
}

// setUserTimeout bounds how long the kernel waits for acknowledgements.
func setUserTimeout(raw net.Conn) error {
	if c, ok := raw.(*listener.Conn); ok {
		raw = c.Conn
	}
	socket, ok := raw.(*net.TCPConn)
	if !ok {
		return nil
	}
	control, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var option error
	if err := control.Control(func(fd uintptr) {
		option = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	}); err != nil {
		return err
	}
	return option
}

// counted counts the bytes of a connection, those of TLS too.
type counted struct {
	net.Conn
	metrics *metrics
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.metrics.received.Add(uint64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.metrics.sent.Add(uint64(n))
	return n, err
}
