package state

import (
	"slices"
	"time"
)

// Connected counts an edge whose configuration stream began, so that shares wait for its first report.
func (s *State) Connected(edge Edge, now time.Time) {
	e := s.edge(edge)
	if e.streams++; e.streams == 1 {
		s.setAway(e, now)
	}
	s.noteConnection(e, now)
}

// Disconnected ends what Connected began.
func (s *State) Disconnected(edge Edge, now time.Time) {
	if e := s.edges[edge.Key()]; e != nil {
		e.streams--
		e.versionsReported = e.versionsReported && e.streams > 0
		s.noteConnection(e, now)
	}
}

// edge returns what is known of an edge, which may be nothing yet.
func (s *State) edge(edge Edge) *edgeState {
	e := s.edges[edge.Key()]
	if e == nil {
		e = &edgeState{replicas: map[string]int64{}}
		s.edges[edge.Key()] = e
	}
	e.Edge = edge
	return e
}

// noteConnection takes that an edge connected or disconnected, here or elsewhere.
func (s *State) noteConnection(e *edgeState, now time.Time) {
	was := e.connected
	e.connected = e.streams > 0
	for replica := range e.replicas {
		e.connected = e.connected || s.replicas.heard(replica)
	}
	if was && !e.connected {
		s.setAway(e, now)
	}
	if was != e.connected {
		e.awaySince = now // as long as it is not connected, and then until it reports
		s.readEdges()
	}
}

// setAway keeps an edge's part of the demand until it reports again: it is connected nowhere, or to another replica than
// before, and its stream of load reports comes some seconds later.
func (s *State) setAway(e *edgeState, now time.Time) {
	e.awaySince = now
	for _, b := range s.backends {
		if r := b.regions[e.Region]; r != nil {
			r.demand.Away(e.Key(), now)
		}
	}
}

// forgetEdges removes the edges that are away for long. While a replica is silent, any of them may be connected to it.
func (s *State) forgetEdges(now time.Time) {
	for _, e := range s.edges {
		switch {
		case e.awaySince.IsZero() && e.connected || now.Sub(e.awaySince) < forgetEdgeAfter:
		case e.connected: // what it did not report since is over
			e.awaySince = time.Time{}
			for _, b := range s.backends {
				if r := b.regions[e.Region]; r != nil {
					r.demand.ForgetAway(e.Key())
				}
			}
		case !s.replicas.silent():
			s.forgetEdge(e)
		}
	}
}

func (s *State) forgetEdge(e *edgeState) {
	key := e.Key()
	delete(s.edges, key)
	for _, b := range s.backends {
		if r := b.regions[e.Region]; r != nil {
			r.demand.ForgetEdge(key)
			r.health.ForgetEdge(key)
			delete(r.fractions, key)
			delete(r.open, key)
			b.resplitDue = true
		}
	}
}

// forgetNamesakes removes the edges that are away and have the name of one that reports: it connects from another address
// now, as behind the address of another node.
func (s *State) forgetNamesakes(e *edgeState) {
	for _, other := range s.edges {
		if other != e && !other.connected && other.Pool == e.Pool && other.Node == e.Node {
			s.forgetEdge(other)
		}
	}
}

// readEdges sets which edges are connected in each region.
func (s *State) readEdges() {
	for i := range s.regions {
		s.regions[i].edges = nil
		for key, e := range s.edges {
			if e.Region == s.regions[i].name && e.connected {
				s.regions[i].edges = append(s.regions[i].edges, key)
			}
		}
		slices.Sort(s.regions[i].edges)
	}
}
