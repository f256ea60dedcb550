package server

import (
	"container/list"
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"crossway.dev/crossway/pkg/registration"
)

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
// closes all connections could send a burst again. Pool "" has those whose certificate
// lets nobody in, revoked ones too: they take no place of an edge.
type connections struct {
	authorize func(registration.EdgeIdentity) error
	oldCALife time.Duration

	mu    sync.Mutex // guards the rest
	pools map[string]*poolConnections
	open  map[*edgeConnection]struct{}
	ca    string // that signed the server's certificate; "": not known
	// draining: no new ones are let in.
	draining bool
}

func newConnections(config Config) *connections {
	return &connections{authorize: config.Authorize, oldCALife: config.OldCALife,
		pools: map[string]*poolConnections{}, open: map[*edgeConnection]struct{}{}}
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
	pool     string // whose quota it counts in
	identity registration.EdgeIdentity
	leaf     *x509.Certificate
	all      *connections
	streams  *rate.Limiter

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
	c := &edgeConnection{Conn: conn, leaf: leaf, all: a, streams: rate.NewLimiter(openRate, openBurst), changedAt: time.Now()}
	if id, err := registration.EdgeIdentityOf(leaf); err == nil && a.authorize(id) == nil { // else all streams are rejected
		c.identity, c.pool = id, id.Pool
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining {
		return nil, errDraining
	}
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
	a.open[c] = struct{}{}
	c.expiry = time.AfterFunc(a.life(c), func() { _ = c.Close() })
	return c, nil
}

// life is how long a connection may still live. mu is held.
func (a *connections) life(c *edgeConnection) time.Duration {
	life := time.Until(c.leaf.NotAfter)
	if a.ca != "" && c.leaf.Issuer.CommonName != a.ca {
		life = min(life, a.oldCALife+rand.N(a.oldCALife/2+1))
	}
	return life
}

// setCA says which CA signs now. Connections with certificates of another one end soon.
func (a *connections) setCA(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ca == name {
		return
	}
	a.ca = name
	for c := range a.open {
		c.expiry.Reset(a.life(c))
	}
}

// reauthorize closes the connections of edges that are let in no more, once their
// streams have ended and said why.
func (a *connections) reauthorize() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		if c.pool != "" && a.authorize(c.identity) != nil {
			c.expiry.Reset(farewell)
		}
	}
}

// farewell is how long the connection of an edge that is let in no more stays open: its
// streams end at once, and their status is to reach it.
const farewell = time.Second

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

// isForUsage says whether the connection is for usage alone.
func (c *edgeConnection) isForUsage() bool {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	return !c.needed
}

// forget counts the connection no more. all.mu is held.
func (c *edgeConnection) forget() {
	if c.closed {
		return
	}
	c.closed = true
	c.expiry.Stop()
	delete(c.all.open, c)
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
