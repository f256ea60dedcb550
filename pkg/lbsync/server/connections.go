package server

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"crossway.dev/crossway/pkg/registration"
)

// Limits of connections that have not presented an edge's certificate yet. The
// oldest makes room for a new one: a handshake takes an edge a few round trips, and
// who holds sockets open holds the oldest.
const (
	maxPending, maxPendingOfSource = 1024, 64
	// acceptRate is how many connections per second a source may open, acceptBurst how
	// many at once. A handshake costs the hub some tenths of a millisecond.
	acceptRate, acceptBurst = 100, 1000
	maxSources              = 4096
)

// Listen returns a socket for NewGRPCServer that bounds the connections without an
// edge's certificate, in all and by source.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve edges: %w", err)
	}
	return &pendingListener{Listener: socket, rates: map[netip.Prefix]*rate.Limiter{}, count: map[netip.Prefix]int{}}, nil
}

type pendingListener struct {
	net.Listener

	mu      sync.Mutex // guards the rest
	pending list.List  // of *pendingConn, oldest first
	count   map[netip.Prefix]int
	rates   map[netip.Prefix]*rate.Limiter
}

// pendingConn is a connection until its handshake is done.
type pendingConn struct {
	net.Conn
	source   netip.Prefix
	listener *pendingListener
	place    *list.Element // nil: not pending any more
}

// Accept implements net.Listener.
func (l *pendingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &pendingConn{Conn: conn, source: sourceOf(conn.RemoteAddr()), listener: l}
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

// sourceOf is the address of a client; of IPv6 the network that one machine has.
func sourceOf(address net.Addr) netip.Prefix {
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
func (l *pendingListener) add(c *pendingConn) (evicted *pendingConn, ok bool) {
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
		for oldest.Value.(*pendingConn).source != c.source {
			oldest = oldest.Next()
		}
	} else if l.pending.Len() < maxPending {
		oldest = nil
	}
	if oldest != nil {
		evicted = oldest.Value.(*pendingConn)
		l.remove(evicted)
	}
	c.place = l.pending.PushBack(c)
	l.count[c.source]++
	return evicted, true
}

// remove ends the waiting of a connection. l.mu is held.
func (l *pendingListener) remove(c *pendingConn) {
	if c.place == nil {
		return
	}
	l.pending.Remove(c.place)
	c.place = nil
	if l.count[c.source]--; l.count[c.source] == 0 {
		delete(l.count, c.source)
	}
}

// established says that the handshake is done.
func (c *pendingConn) established() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.listener.remove(c)
}

// Close implements net.Conn.
func (c *pendingConn) Close() error {
	c.established()
	return c.Conn.Close()
}

// Limits of the connections of one pool.
const (
	// maxConnections: an Envoy has one for configuration and load reports, or two for a
	// moment, maybe one that is dead, and one for each worker that says what is used.
	// Where machines have many processors, those are more than all others: the oldest of
	// them makes room for a new connection.
	maxConnections = 1024
	// maxUnfinished is how many bytes of requests that are not complete yet, or not
	// processed, the connections of a pool may have together. When there are more,
	// a connection that sends and has more than maxUnfinishedOfOne is closed.
	maxUnfinished, maxUnfinishedOfOne = 128 << 20, 2 << 20
	// overheadRate is how many bytes per second count as no part of a request: frames
	// of HTTP/2 that keep the connection alive.
	overheadRate = 1 << 10
	// receiveRate is how many bytes per second the connections of a pool may send in
	// the long run, and receiveBurst how many at once: a hundred edges that all
	// reconnect. Frames of HTTP/2 are small, and each costs time.
	receiveRate, receiveBurst = 32 << 20, 512 << 20
	// openRate is how many streams per second a connection may open, after openBurst.
	openRate, openBurst = 2, 16
)

var (
	errTooManyConnections = errors.New("the edges of this pool have too many connections")
	errUnfinished         = errors.New("the edges of this pool have sent too many requests that are not complete")
)

// connections are those with an edge's certificate. A pool stays in pools, or who
// closes all connections could send a burst again.
type connections struct {
	mu    sync.Mutex
	pools map[string]*poolConnections
}

// poolConnections are the connections of one pool, and what is unfinished on them.
type poolConnections struct {
	open, unfinished int
	received         *rate.Limiter // in bytes
	usages           list.List     // of *edgeConnection: those that are for usage alone, oldest first
}

// edgeConnection is a connection whose handshake is done. It is closed when its
// client certificate expires.
type edgeConnection struct {
	net.Conn
	pool    string
	all     *connections
	streams *rate.Limiter

	// Guarded by all.mu:
	expiry     *time.Timer
	unfinished int
	changedAt  time.Time
	closed     bool
	needed     bool          // for more than usage
	place      *list.Element // in usages
}

// edgeAuth is the result of a handshake.
type edgeAuth struct {
	credentials.TLSInfo
	connection *edgeConnection
}

func (a *connections) add(conn net.Conn, info credentials.TLSInfo) (*edgeConnection, error) {
	leaf := info.State.PeerCertificates[0]
	id, _ := registration.EdgeIdentityOf(leaf) // without one all streams are rejected
	c := &edgeConnection{Conn: conn, pool: id.Pool, all: a, streams: rate.NewLimiter(openRate, openBurst), changedAt: time.Now()}
	a.mu.Lock()
	defer a.mu.Unlock()
	pool := a.pools[c.pool]
	if pool == nil {
		pool = &poolConnections{received: rate.NewLimiter(receiveRate, receiveBurst)}
		a.pools[c.pool] = pool
	}
	if pool.open >= maxConnections {
		oldest := pool.usages.Front()
		if oldest == nil {
			return nil, errTooManyConnections
		}
		evicted := oldest.Value.(*edgeConnection)
		evicted.forget()
		go func() { _ = evicted.Conn.Close() }() // which may wait for its client
	}
	pool.open++
	c.expiry = time.AfterFunc(time.Until(leaf.NotAfter), func() { _ = c.Close() })
	return c, nil
}

// Read implements net.Conn.
func (c *edgeConnection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		wait, ok := c.received(n)
		if !ok {
			return 0, errUnfinished
		}
		time.Sleep(wait) // which makes the client wait, and nobody else
	}
	return n, err
}

// received counts what was read, and says how long to wait before more is.
func (c *edgeConnection) received(n int) (wait time.Duration, ok bool) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.closed {
		return 0, false
	}
	now, pool := time.Now(), c.all.pools[c.pool]
	c.count(n - min(c.unfinished, int(now.Sub(c.changedAt).Seconds()*overheadRate)))
	c.changedAt = now
	return pool.received.ReserveN(now, n).DelayFrom(now), c.unfinished <= maxUnfinishedOfOne || pool.unfinished <= maxUnfinished
}

// mayOpen waits until the connection may open another stream. gRPC calls it where it
// reads the connection, which is thereby not read either.
func mayOpen(ctx context.Context, _ *tap.Info) (context.Context, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if auth, ok := p.AuthInfo.(edgeAuth); ok {
			time.Sleep(auth.connection.streams.Reserve().Delay())
		}
	}
	return ctx, nil
}

// finished says that a request of this size was processed.
func (c *edgeConnection) finished(size int) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if !c.closed {
		c.count(-min(size+size/512, c.unfinished))
	}
}

// count adds to what is unfinished. all.mu is held.
func (c *edgeConnection) count(n int) {
	c.unfinished += n
	c.all.pools[c.pool].unfinished += n
}

// opens notes what a stream of the connection is for.
func (c *edgeConnection) opens(what service) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	usages := &c.all.pools[c.pool].usages
	switch {
	case c.closed || c.needed:
	case what == usage && c.place == nil:
		c.place = usages.PushBack(c)
	case what != usage:
		c.needed = true
		if c.place != nil {
			usages.Remove(c.place)
			c.place = nil
		}
	}
}

// forget counts the connection no more. all.mu is held.
func (c *edgeConnection) forget() {
	if c.closed {
		return
	}
	c.closed = true
	c.expiry.Stop()
	pool := c.all.pools[c.pool]
	pool.unfinished -= c.unfinished
	pool.open--
	if c.place != nil {
		pool.usages.Remove(c.place)
		c.place = nil
	}
}

// Close implements net.Conn.
func (c *edgeConnection) Close() error {
	c.all.mu.Lock()
	c.forget()
	c.all.mu.Unlock()
	return c.Conn.Close()
}
