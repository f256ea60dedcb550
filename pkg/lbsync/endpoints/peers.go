package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/replica"
)

// peersVersion is the version of what replicas tell each other here. A replica ignores what has another one, as if it were
// not said.
const peersVersion = 1

// candidateKey is the key of a replica's Candidate in topic shares. Backends have others.
const candidateKey = "candidate"

// idleReports is after how many reports without a request in a row an assignment is left out of what other replicas get:
// twice the window of the demand. Most assignments of most edges have none.
const idleReports = 12

// maxIdleBytes bounds the names of idle assignments that are remembered of one edge, which may invent names: 10,000 have
// 1 MB. Beyond it they are all told of again.
const maxIdleBytes = 2 << 20

// message is a value of both topics.
type message struct {
	Version   int               `json:"v"`
	Report    *state.EdgeReport `json:"report,omitempty"`
	Candidate *state.Candidate  `json:"candidate,omitempty"`
	Decision  *state.Decision   `json:"decision,omitempty"`
}

// peers is what the other replicas are told.
type peers struct {
	candidate state.Candidate // as it was said last
	met       bool
	edges     *sharedEdges
}

// sharedEdges are the edges that are connected here. Reports come beside the loop, so they have a lock of their own.
type sharedEdges struct {
	mu    sync.Mutex
	edges map[string]*sharedEdge
	// unread are the replicas with values that this one cannot read, which the log says.
	unread sync.Map
}

type sharedEdge struct {
	streams int
	// sequence is that of the last report. It begins with the time, so that no earlier one is taken for it.
	sequence  int64
	idle      map[string]int // reports in a row without a request, by assignment
	idleBytes int            // of its keys
}

// subscribe has the words of other replicas taken into the inbox.
func (l *Loop) subscribe() {
	if l.config.Load == nil {
		return
	}
	l.config.Load.Subscribe(replica.Observer{
		Changed: func(from, key string, value []byte) {
			if m, ok := l.read(from, value); ok && m.Report != nil && m.Report.Edge.Key() == key {
				l.hear(state.Word{Replica: from, Kind: state.Reported, Edge: *m.Report})
			}
		},
		Deleted: func(from, key string) { l.hear(state.Word{Replica: from, Kind: state.Left, EdgeKey: key}) },
	})
	l.config.Shares.Subscribe(replica.Observer{
		Changed: func(from, key string, value []byte) { l.hearShares(from, key, value) },
		Deleted: func(from, key string) {
			if backend, ok := parseBackend(key); ok {
				l.hear(state.Word{Replica: from, Kind: state.Withdrawn, Backend: backend})
			}
		},
		Heard:   func(from string) { l.hear(state.Word{Replica: from, Kind: state.Heard}) },
		Silent:  func(from string) { l.hear(state.Word{Replica: from, Kind: state.Silent}) },
		Leaving: func(from string) { l.hear(state.Word{Replica: from, Kind: state.Leaving}) },
		Gone:    func(from string) { l.hear(state.Word{Replica: from, Kind: state.Gone}) },
	})
}

func (l *Loop) hear(w state.Word) {
	w.At = l.config.Clock.Now()
	l.inbox.addWord(w)
}

func (l *Loop) hearShares(from, key string, value []byte) {
	m, ok := l.read(from, value)
	backend, isBackend := parseBackend(key)
	switch {
	case !ok && isBackend: // an earlier version's word does not hold on
		l.hear(state.Word{Replica: from, Kind: state.Withdrawn, Backend: backend})
	case !ok:
	case key == candidateKey && m.Candidate != nil:
		m.Candidate.Name = from
		l.hear(state.Word{Replica: from, Kind: state.Stands, Candidate: *m.Candidate})
	case isBackend && m.Decision != nil && m.Decision.Valid():
		l.hear(state.Word{Replica: from, Kind: state.Decided, Backend: backend, Decision: *m.Decision})
	}
}

// read returns what a value says; ok is false for one of another version, which the log says once for each replica.
func (l *Loop) read(from string, value []byte) (m message, ok bool) {
	value, err := replica.Unpack(value)
	if err == nil {
		err = json.Unmarshal(value, &m)
	}
	if err == nil && m.Version != peersVersion {
		err = fmt.Errorf("it has version %d, not %d", m.Version, peersVersion)
	}
	if err == nil {
		return m, true
	}
	if _, said := l.peers.edges.unread.LoadOrStore(from, true); !said {
		l.config.Log.Info("cannot read what another replica says about load and shares, as during an upgrade", "replica", from, "reason", err.Error())
	}
	return m, false
}

func write(m message) []byte {
	m.Version = peersVersion
	value, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	return replica.Pack(value)
}

// meetPeers notes that each other replica was heard, or is not there.
func (l *Loop) meetPeers() {
	if l.peers.met {
		return
	}
	select {
	case <-l.config.PeersHeard:
		l.peers.met = true
		l.state.SetPeersHeard()
	default:
	}
}

// tellPeers tells the other replicas what is in force here. l.mu is held.
func (l *Loop) tellPeers(now time.Time) {
	decisions := l.state.TakeDecisions()
	if l.config.Shares == nil {
		return
	}
	for backend, d := range decisions {
		if d == nil {
			l.config.Shares.Delete(backend.String())
		} else {
			l.config.Shares.Set(backend.String(), write(message{Decision: d}))
		}
	}
	candidate := l.state.Candidate(now)
	if said := l.peers.candidate; candidate != said {
		l.peers.candidate = candidate
		l.config.Shares.Set(candidateKey, write(message{Candidate: &candidate}))
	}
}

// shareEdge tells other replicas that an edge's stream began or ended.
func (l *Loop) shareEdge(edge Edge, streams int) {
	if l.config.Load == nil {
		return
	}
	e, key := l.peers.edges, edge.Key()
	e.mu.Lock()
	defer e.mu.Unlock()
	one := e.edges[key]
	if one == nil {
		one = &sharedEdge{sequence: l.config.Clock.Now().UnixNano(), idle: map[string]int{}}
		e.edges[key] = one
	}
	switch one.streams += streams; {
	case one.streams <= 0:
		delete(e.edges, key)
		l.config.Load.Delete(key)
	case streams > 0 && one.streams == 1:
		one.say(l.config.Load, edge, nil)
	}
}

// shareReport tells other replicas what an edge reported.
func (l *Loop) shareReport(edge Edge, loads []Load) {
	if l.config.Load == nil {
		return
	}
	e := l.peers.edges
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.edges[edge.Key()]; one != nil {
		one.say(l.config.Load, edge, one.withoutIdle(loads))
	}
}

// say sets an edge's last report; none: it is connected.
func (e *sharedEdge) say(load replica.Topic, edge Edge, loads []Load) {
	e.sequence++
	load.Set(edge.Key(), write(message{Report: &state.EdgeReport{Edge: edge, Sequence: e.sequence, Loads: loads}}))
}

// withoutIdle leaves out the assignments that have had no request for long.
func (e *sharedEdge) withoutIdle(loads []Load) []Load {
	var out []Load
	for _, load := range loads {
		before, idle := e.idle[load.Assignment]
		switch {
		case load.Dropped == 0 && len(load.Localities) == 0:
			e.setIdle(load.Assignment, before+1)
		case idle:
			delete(e.idle, load.Assignment)
			e.idleBytes -= len(load.Assignment)
			before = 0
		}
		if before < idleReports {
			out = append(out, load)
		}
	}
	return out
}

// setIdle sets the number of reports in a row in which an assignment had no request.
func (e *sharedEdge) setIdle(assignment string, reports int) {
	if reports == 1 {
		if e.idleBytes += len(assignment); e.idleBytes > maxIdleBytes {
			clear(e.idle)
			e.idleBytes = len(assignment)
		}
	}
	e.idle[assignment] = reports
}

// parseBackend reads Backend.String.
func parseBackend(key string) (fleet.Backend, bool) {
	kind, rest, found := strings.Cut(key, " ")
	namespace, name, found2 := strings.Cut(rest, "/")
	return fleet.Backend{Kind: fleet.BackendKind(kind), Name: fleet.ServiceName{Namespace: namespace, Name: name}}, found && found2
}
