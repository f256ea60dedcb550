package server

import (
	"container/list"
	"context"
	"maps"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/program"
)

// Limits of one member. Where its clients have more, the oldest makes room: it may be
// the one whose machine has vanished.
const (
	maxConnections = 16
	maxWatches     = 16
	// maxLists is how many lists are sent at a time.
	maxLists = 4
	// requestRate is how many requests per second a member may make, after requestBurst.
	requestRate, requestBurst = 10, 100
)

// memberState is what one member has open.
type memberState struct {
	connections list.List // of *connection, oldest first
	watches     list.List // of *openWatch, oldest first
	lists       int
	behind      int // readers that come from another replica and wait
	requests    *rate.Limiter
	// Of gossip: questions that wait, and certificates.
	waits        int
	certificates *rate.Limiter
}

// openWatch is one watch of one client.
type openWatch struct {
	cluster  fleet.ClusterName
	resource string
	watch    *memberapi.Watch // of its request's goroutine
	reader   *memberapi.Reader
	wake     batch.Signal
	// displaced is closed when a newer watch takes the place.
	displaced chan struct{}
	began     time.Time
}

// stateOf is the client of a member. openMu is held.
func (s *Server) stateOf(cluster fleet.ClusterName) *memberState {
	c := s.open[cluster]
	if c == nil {
		c = &memberState{requests: rate.NewLimiter(requestRate, requestBurst), certificates: rate.NewLimiter(signRate, signBurst)}
		s.open[cluster] = c
	}
	return c
}

// admit counts a request of a member, and the connection that it came on. It says whether the member may make
// the request now.
func (s *Server) admit(cluster fleet.ClusterName, conn *connection) bool {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	c := s.stateOf(cluster)
	if conn != nil && conn.place == nil && !conn.closed {
		if s.draining {
			conn.closed = true
			go func() { _ = conn.Close() }() // which may wait for its client
			return false
		}
		if c.connections.Len() >= maxConnections {
			oldest := c.connections.Remove(c.connections.Front()).(*connection)
			oldest.closed = true
			go func() { _ = oldest.Close() }() // which may wait for its client
		}
		conn.owner, conn.place = c, c.connections.PushBack(conn)
	}
	return c.requests.AllowN(s.config.Clock.Now(), 1)
}

// connectionClosed forgets a connection.
func (s *Server) connectionClosed(conn *connection) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if conn.place != nil && !conn.closed {
		conn.owner.connections.Remove(conn.place)
	}
	conn.closed = true
}

// Drain lets no new connection make requests, and ends all connections, spread over a time:
// agents connect to another replica, and go on meanwhile with what they have.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.openMu.Lock()
	s.draining = true
	s.openMu.Unlock()
	program.Drain(ctx, over, s.connections)
}

// connections are those of members.
func (s *Server) connections() (all []*connection) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	for _, c := range s.open {
		for e := c.connections.Front(); e != nil; e = e.Next() {
			all = append(all, e.Value.(*connection))
		}
	}
	return all
}

// connection is a client's connection.
type connection struct {
	net.Conn

	// Guarded by Server.openMu:
	owner  *memberState
	place  *list.Element
	closed bool

	// trying is held while a request is authenticated.
	trying sync.Mutex
	failed bool // guarded by trying: a request was not authenticated
}

// try authenticates a request. After one that failed, all others of the connection
// do, also those that came at the same time, as HTTP/2 has it: each try may be a
// request to the API server, so connections bound them.
func (c *connection) try(authenticate func() bool) bool {
	if c == nil {
		return authenticate()
	}
	c.trying.Lock()
	defer c.trying.Unlock()
	c.failed = c.failed || !authenticate()
	return !c.failed
}

// opened registers a watch. close forgets it.
func (s *Server) opened(w *openWatch) (closeWatch func()) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	c := s.stateOf(w.cluster)
	if c.watches.Len() >= maxWatches {
		close(c.watches.Remove(c.watches.Front()).(*openWatch).displaced)
	}
	place := c.watches.PushBack(w)
	return func() {
		s.openMu.Lock()
		defer s.openMu.Unlock()
		c.watches.Remove(place) // which does nothing if it was displaced
	}
}

// beginList counts a list, or says that the member has too many.
func (s *Server) beginList(cluster fleet.ClusterName) (end func(), ok bool) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	c := s.stateOf(cluster)
	if c.lists >= maxLists {
		return nil, false
	}
	c.lists++
	return func() {
		s.openMu.Lock()
		defer s.openMu.Unlock()
		c.lists--
	}, true
}

// forgetIdle forgets the members that have nothing open: they may not be accepted any more.
func (s *Server) forgetIdle() {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	maps.DeleteFunc(s.open, func(_ fleet.ClusterName, c *memberState) bool {
		return c.connections.Len()+c.watches.Len()+c.lists+c.behind+c.waits == 0
	})
}

// wake wakes the watches that changes concern, or all.
func (s *Server) wake(touched memberapi.Touched, all bool) {
	if !all && len(touched.Namespaces) == 0 {
		return
	}
	var woken []*openWatch
	s.openMu.Lock()
	for _, c := range s.open {
		for e := c.watches.Front(); e != nil; e = e.Next() {
			woken = append(woken, e.Value.(*openWatch))
		}
	}
	s.openMu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, w := range woken {
		if all || w.concerns(touched) {
			w.wake.Set()
		}
	}
}

// concerns says whether a watch's reader sees any of what changed.
func (w *openWatch) concerns(touched memberapi.Touched) bool {
	for namespace := range touched.Namespaces[w.resource] {
		if w.reader.Sees(namespace) {
			return true
		}
	}
	return false
}
