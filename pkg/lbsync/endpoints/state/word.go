package state

import (
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Word is what another replica of the hub says, or what became of it. Fields beside the first ones are of one kind each.
type Word struct {
	Replica string
	At      time.Time // when it came here
	Kind    WordKind

	Edge      EdgeReport // Reported
	EdgeKey   string     // Left
	Candidate Candidate  // Stands
	Backend   fleet.Backend
	Decision  Decision // Decided
}

// WordKind is what a Word is about.
type WordKind int

// Kinds of Words.
const (
	// Heard and Silent say whether anything comes from the replica. What it said is kept while it is silent, until it is Gone
	// (after ten minutes). Leaving: it ends its edges' streams and stops.
	Heard WordKind = iota
	Silent
	Gone
	Leaving
	// Reported: an edge is connected to the replica, and what it reported last. Left: it is not any more.
	Reported
	Left
	// Stands is about the replica itself.
	Stands
	// Decided has the shares of one backend that are in force at the replica. Withdrawn: it uses the backend no more.
	Decided
	Withdrawn
)

// EdgeReport is the last load report of one edge.
type EdgeReport struct {
	Edge Edge `json:"edge"`
	// Sequence grows by one with each report. Where one is missing, what it counted is not known.
	Sequence int64 `json:"sequence"`
	// Interval is what the report covers; 0: it only says that the edge is connected.
	Interval time.Duration `json:"interval,omitempty"`
	// Loads lack assignments that have had no request for long.
	Loads []Load `json:"loads,omitempty"`
}

// replicas is what this replica knows of the others.
type replicas struct {
	others         map[string]*otherReplica
	decider        string // whose shares are in force here
	peersHeard     bool
	assignmentsSet bool
	since          time.Time // both of these
	ready          bool      // others may rely on this one
	leaving        bool      // it stops soon
	said           map[fleet.Backend]*Decision
}

// otherReplica is one of the others, as it said last.
type otherReplica struct {
	heard     bool
	leaving   bool
	candidate Candidate
	saidAt    time.Time // when the candidate last said something new
	decisions map[fleet.Backend]*Decision
}

func newReplicas(self string) replicas {
	return replicas{others: map[string]*otherReplica{}, decider: self, said: map[fleet.Backend]*Decision{}}
}

func (r replicas) heard(name string) bool { return r.others[name] != nil && r.others[name].heard }

// silent says whether there is a replica to which edges may be connected of which there is no word.
func (r replicas) silent() bool {
	for _, o := range r.others {
		if !o.heard && !o.leaving {
			return true
		}
	}
	return false
}

func (r replicas) other(name string) *otherReplica {
	if r.others[name] == nil {
		r.others[name] = &otherReplica{decisions: map[fleet.Backend]*Decision{}}
	}
	return r.others[name]
}

// hear takes what another replica said.
func (s *State) hear(w Word, health healthEvents) {
	o := s.replicas.other(w.Replica)
	switch w.Kind {
	case Heard, Silent:
		o.heard, o.leaving = w.Kind == Heard, o.leaving && w.Kind == Silent
		for _, e := range s.edges {
			if _, there := e.replicas[w.Replica]; there {
				s.noteConnection(e, w.At)
			}
		}
		if !s.replicas.ready { // it may have followed this one
			s.divideAll()
		}
	case Leaving:
		o.leaving = true
	case Gone: // all that it said was withdrawn before
		delete(s.replicas.others, w.Replica)
	case Reported:
		s.hearReport(w, health)
	case Left:
		if e := s.edges[w.EdgeKey]; e != nil {
			delete(e.replicas, w.Replica)
			if s.noteConnection(e, w.At); !e.connected {
				e.awaySince = w.At
			}
		}
	case Stands:
		if o.candidate != w.Candidate {
			o.candidate, o.saidAt = w.Candidate, w.At
		}
	case Decided:
		o.decisions[w.Backend] = &w.Decision
		s.divide(w.Backend)
	case Withdrawn:
		delete(o.decisions, w.Backend)
		s.divide(w.Backend)
	}
}

func (s *State) divide(backend fleet.Backend) {
	if b := s.backends[backend]; b != nil {
		s.dirty.backends[b] = true
	}
}

// hearReport takes a report of an edge that is connected to another replica, or that it is.
func (s *State) hearReport(w Word, health healthEvents) {
	e := s.edge(w.Edge.Edge)
	last, known := e.replicas[w.Replica]
	e.replicas[w.Replica] = w.Edge.Sequence
	s.beginLearning(e.Region, w.At)
	if !known {
		s.setAway(e, w.At)
	}
	s.noteConnection(e, w.At)
	if w.Edge.Interval <= 0 || known && last == w.Edge.Sequence {
		return
	}
	if known && last+1 != w.Edge.Sequence { // a report is missing, and with it how many requests reached an endpoint
		for _, b := range s.backends {
			if r := b.regions[e.Region]; r != nil {
				delete(r.open, e.Key())
			}
		}
	}
	s.observeLoad(e, LoadReport{Edge: e.Edge, At: w.At, Loads: w.Edge.Loads, Interval: w.Edge.Interval}, health)
}

// ReplicaDump is what one replica knows of another.
type ReplicaDump struct {
	Heard     bool
	Candidate Candidate
	Edges     []string // connected to it, as it said last
	Decisions int
}

// dumpReplicas is what is known of the other replicas, by name.
func (s *State) dumpReplicas() map[string]ReplicaDump {
	out := map[string]ReplicaDump{}
	for name, o := range s.replicas.others {
		d := ReplicaDump{Heard: o.heard, Candidate: o.candidate, Decisions: len(o.decisions)}
		for _, key := range slices.Sorted(maps.Keys(s.edges)) {
			if _, there := s.edges[key].replicas[name]; there {
				d.Edges = append(d.Edges, key)
			}
		}
		out[name] = d
	}
	return out
}
