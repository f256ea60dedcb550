package listener

import (
	"container/list"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// Limits of connections that are not established yet. The oldest makes room for a
// new one: to authenticate takes a client a few round trips, and who holds sockets
// open holds the oldest.
const (
	maxPending, maxPendingOfSource = 1024, 64
	// acceptRate is how many connections per second a source may open, acceptBurst how
	// many at once. A handshake costs the hub some tenths of a millisecond.
	acceptRate, acceptBurst = 100, 1000
	maxSources              = 4096
)

// Listen returns a socket whose connections are *Conn. Those that are not
// established are bounded, in all and by source.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return &listener{Listener: socket, rates: map[netip.Prefix]*rate.Limiter{}, count: map[netip.Prefix]int{}}, nil
}

type listener struct {
	net.Listener

	mu      sync.Mutex // guards the rest
	pending list.List  // of *Conn, oldest first
	count   map[netip.Prefix]int
	rates   map[netip.Prefix]*rate.Limiter
}

// Conn is a connection. It may be closed as long as it is not established.
type Conn struct {
	net.Conn
	source   netip.Prefix
	listener *listener
	place    *list.Element // nil: not pending any more
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Conn{Conn: conn, source: SourceOf(conn.RemoteAddr()), listener: l}
		evicted, ok := l.add(c)
		if evicted != nil {
			_ = evicted.Conn.Close()
		}
		if ok {
			return c, nil
		}
		_ = conn.Close()
	}
}

// SourceOf is the address of a client; of IPv6 the network that one machine has.
func SourceOf(address net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // the length is right
	return prefix
}

// add makes room for a connection; false if its source opens too many.
func (l *listener) add(c *Conn) (evicted *Conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.rates[c.source]
	if limiter == nil {
		if len(l.rates) >= maxSources {
			clear(l.rates)
		}
		limiter = rate.NewLimiter(acceptRate, acceptBurst)
		l.rates[c.source] = limiter
	}
	if !limiter.Allow() {
		return nil, false
	}
	oldest := l.pending.Front()
	if l.count[c.source] >= maxPendingOfSource {
		for oldest.Value.(*Conn).source != c.source {
			oldest = oldest.Next()
		}
	} else if l.pending.Len() < maxPending {
		oldest = nil
	}
	if oldest != nil {
		evicted = oldest.Value.(*Conn)
		l.remove(evicted)
	}
	c.place = l.pending.PushBack(c)
	l.count[c.source]++
	return evicted, true
}

// remove ends the waiting of a connection. l.mu is held.
func (l *listener) remove(c *Conn) {
	if c.place == nil {
		return
	}
	l.pending.Remove(c.place)
	c.place = nil
	if l.count[c.source]--; l.count[c.source] == 0 {
		delete(l.count, c.source)
	}
}

// Established says that the client has authenticated.
func (c *Conn) Established() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.listener.remove(c)
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.Established()
	return c.Conn.Close()
}
