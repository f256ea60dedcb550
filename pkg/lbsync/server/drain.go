package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/program"
)

var errDraining = errors.New("this replica of the hub stops; another one serves")

// Drain lets nobody connect any more, and ends all connections, spread over a time: their
// edges connect to another replica, and go on meanwhile with what they have. A connection
// ends as a whole, since an Envoy would open the next stream on it. GOAWAY alone would not
// do: an Envoy keeps a connection whose streams go on, and these never end by themselves.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.connections.drain()
	program.Drain(ctx, over, s.connections.list)
}

// drain refuses new connections.
func (a *connections) drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.draining = true
}

func (a *connections) list() []*edgeConnection {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.open))
}

// movedTime is how long an edge that was moved is refused here: long enough for several
// tries, each at a replica that the load balancer chooses.
const movedTime = 5 * time.Second

var errMoved = status.Error(codes.Unavailable, "this edge belongs to another replica of the hub; connect again")

// move ends the connection of the edge of a pool that is connected for the longest time,
// if that is at least stay. It returns the edge's name, "" if there is none.
func (s *Server) move(pool string, stay time.Duration) string {
	edges := slices.DeleteFunc(s.Connected(), func(e Edge) bool { return e.Identity.Pool != pool || time.Since(e.Since) < stay })
	if len(edges) == 0 {
		return ""
	}
	longest := slices.MinFunc(edges, func(a, b Edge) int { return a.Since.Compare(b.Since) })
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.moved, func(_ edgeName, end time.Time) bool { return time.Now().After(end) })
	for open := range s.sessions {
		if open.number == longest.Stream {
			s.moved[edgeName{pool, longest.key()}] = time.Now().Add(movedTime)
			go func() { _ = open.connection.Close() }() // which may wait for its client
			return longest.Node
		}
	}
	return ""
}

// edgeName names an edge of any pool.
type edgeName struct{ pool, key string }

// wasMoved refuses an edge that was moved, with its connection: on this one it would come
// back here.
func (s *Server) wasMoved(open *session, edge Edge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().After(s.moved[edgeName{edge.Identity.Pool, edge.key()}]) {
		return nil
	}
	go func() { _ = open.connection.Close() }() // which may wait for its client
	return errMoved
}
