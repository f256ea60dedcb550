package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

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

// move ends the connection of the edge that is connected for the longest time, if that is
// at least minStay. It returns the edge's name, "" if there is none.
func (s *Server) move(minStay time.Duration) string {
	edges := s.Connected()
	if len(edges) == 0 {
		return ""
	}
	longest := slices.MinFunc(edges, func(a, b Edge) int { return a.Since.Compare(b.Since) })
	if time.Since(longest.Since) < minStay {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for open := range s.sessions {
		if open.number == longest.Stream {
			go func() { _ = open.connection.Close() }() // which may wait for its client
			return longest.Node
		}
	}
	return ""
}
