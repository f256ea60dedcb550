package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
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

// maxReports bounds what other replicas are told of all reports, so that there is room for everything else. Pools have equal
// parts of it: who has the certificate of one takes nothing from the edges of others.
const maxReports = replica.MaxBytes / 2

// maxNames bounds the names in one report that is encoded for other replicas: what is larger does not fit, compressed or not.
const maxNames = 4 << 20

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
	pools map[string]*sharedPool
	// assignments are those that there are: an edge may invent others.
	assignments map[string]bool
	log         logr.Logger
	// unread are the replicas with values that this one cannot read, which the log says.
	unread sync.Map
}

type sharedEdge struct {
	streams int
	// sequence is that of the last report. It begins with the time, so that no earlier one is taken for it.
	sequence int64
	idle     map[string]int // reports in a row without a request, by assignment of the last one
	pool     *sharedPool
	bytes    int // of the report that the others have
}

// sharedPool are the edges of one pool.
type sharedPool struct {
	edges, bytes int
	said         bool // in the log, that there is no room
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
		// An edge whose value is Unknown is connected as before: the next report shows that one is missing.
	})
	l.config.Shares.Subscribe(replica.Observer{
		Changed: func(from, key string, value []byte) { l.hearShares(from, key, value) },
		Deleted: func(from, key string) { l.hearNoShares(from, key) },
		Unknown: func(from, key string) { l.hearNoShares(from, key) }, // an earlier decision does not hold on
		Heard:   func(from string) { l.hear(state.Word{Replica: from, Kind: state.Heard}) },
		Silent: func(from string) {
			l.peers.edges.unread.Delete(from) // what comes under its name next may be another version's
			l.hear(state.Word{Replica: from, Kind: state.Silent})
		},
		Leaving: func(from string) { l.hear(state.Word{Replica: from, Kind: state.Leaving}) },
		Gone:    func(from string) { l.hear(state.Word{Replica: from, Kind: state.Gone}) },
	})
}

func (l *Loop) hear(w state.Word) {
	w.At = l.config.Clock.Now()
	l.inbox.addWord(w)
}

func (l *Loop) hearNoShares(from, key string) {
	if backend, ok := parseBackend(key); ok {
		l.hear(state.Word{Replica: from, Kind: state.Withdrawn, Backend: backend})
	}
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

func write(m message) ([]byte, error) {
	m.Version = peersVersion
	value, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode for other replicas: %w", err)
	}
	return replica.Pack(value), nil
}

// setShares tells other replicas a value of topic shares. What cannot be encoded, as a number that is infinite, they do not have:
// an earlier value does not hold on.
func (l *Loop) setShares(key string, m message) {
	value, err := write(m)
	if err != nil {
		l.config.Log.Error(err, "other replicas are not told what is in force here", "key", key)
		l.config.Shares.Delete(key)
		return
	}
	l.config.Shares.Set(key, value)
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
			l.setShares(backend.String(), message{Decision: d})
		}
	}
	candidate := l.state.Candidate(now)
	if said := l.peers.candidate; candidate != said {
		l.peers.candidate = candidate
		l.setShares(candidateKey, message{Candidate: &candidate})
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
		one = e.add(edge, l.config.Clock.Now())
	}
	switch one.streams += streams; {
	case one.streams <= 0:
		e.remove(edge)
		l.config.Load.Delete(key)
	case streams > 0 && one.streams == 1:
		e.say(l.config.Load, edge)
	}
}

func (e *sharedEdges) add(edge Edge, now time.Time) *sharedEdge {
	p := e.pools[edge.Pool]
	if p == nil {
		p = &sharedPool{}
		e.pools[edge.Pool] = p
	}
	p.edges++
	one := &sharedEdge{sequence: now.UnixNano(), pool: p}
	e.edges[edge.Key()] = one
	return one
}

func (e *sharedEdges) remove(edge Edge) {
	one := e.edges[edge.Key()]
	delete(e.edges, edge.Key())
	one.pool.bytes -= one.bytes
	if one.pool.edges--; one.pool.edges == 0 {
		delete(e.pools, edge.Pool)
	}
}

// shareReport tells other replicas what an edge reported.
func (l *Loop) shareReport(edge Edge, loads []Load) {
	if l.config.Load == nil {
		return
	}
	interval := time.Duration(0)
	for i := range loads {
		interval = max(interval, loads[i].Interval)
	}
	if loads, sequence := l.peers.edges.begin(edge, loads); sequence > 0 {
		value := encode(edge, sequence, interval, loads) // which takes a while: nobody waits for it
		l.peers.edges.set(l.config.Load, edge, sequence, value, len(loads) > 0)
	}
}

// begin is what other replicas are told of a report, and under which number; 0: the edge is not connected.
func (e *sharedEdges) begin(edge Edge, loads []Load) ([]Load, int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := e.edges[edge.Key()]
	if one == nil {
		return nil, 0
	}
	one.sequence++
	return one.withoutIdle(loads, e.assignments), one.sequence
}

// setAssignments sets which assignments reports may be about.
func (e *sharedEdges) setAssignments(assignments []model.Assignment) {
	now := make(map[string]bool, len(assignments))
	for i := range assignments {
		now[assignments[i].Key] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.assignments = now
}

// say says that an edge is connected. e.mu is held.
func (e *sharedEdges) say(load replica.Topic, edge Edge) {
	one := e.edges[edge.Key()]
	one.sequence++
	one.pool.bytes -= one.bytes
	one.bytes = 0 // small, and said in any case
	load.Set(edge.Key(), encode(edge, one.sequence, 0, nil))
}

// encode is the value of a report; nil: it is too large, or cannot be encoded.
func encode(edge Edge, sequence int64, interval time.Duration, loads []Load) []byte {
	if namesIn(loads) > maxNames {
		return nil
	}
	value, err := write(message{Report: &state.EdgeReport{Edge: edge, Sequence: sequence, Interval: interval, Loads: loads}})
	if err != nil {
		return nil
	}
	return value
}

// set sets an edge's report, unless it has said something newer since. Of one for which there is no room the others hear
// that it is lost.
func (e *sharedEdges) set(load replica.Topic, edge Edge, sequence int64, value []byte, counts bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := e.edges[edge.Key()]
	if one == nil || one.sequence != sequence {
		return
	}
	room := min(replica.MaxValueBytes, maxReports/len(e.pools)-one.pool.bytes+one.bytes)
	if counts && (value == nil || len(value) > room) {
		e.say(load, edge)
		one.sequence++ // so that the next one shows that one is missing
		if !one.pool.said {
			one.pool.said = true
			e.log.Info("other replicas are not told what an edge reports: it is too much for one, or for all edges of its pool", "pool", edge.Pool, "edge", edge.Node)
		}
		return
	}
	one.pool.bytes += len(value) - one.bytes
	one.bytes = len(value)
	load.Set(edge.Key(), value)
}

// namesIn is how many bytes of names a report has.
func namesIn(loads []Load) (bytes int) {
	for i := range loads {
		bytes += len(loads[i].Assignment)
		for _, l := range loads[i].Localities {
			bytes += len(l.SubZone)
		}
	}
	return bytes
}

// withoutIdle leaves out the assignments that there are not, and those that have had no request for long.
func (e *sharedEdge) withoutIdle(loads []Load, assignments map[string]bool) []Load {
	var out []Load
	idle := map[string]int{}
	for _, load := range loads {
		if !assignments[load.Assignment] {
			continue
		}
		if load.Dropped > 0 || len(load.Localities) > 0 {
			out = append(out, load)
			continue
		}
		idle[load.Assignment] = e.idle[load.Assignment] + 1
		if idle[load.Assignment] <= idleReports {
			out = append(out, load)
		}
	}
	e.idle = idle
	return out
}

// parseBackend reads Backend.String.
func parseBackend(key string) (fleet.Backend, bool) {
	kind, rest, found := strings.Cut(key, " ")
	namespace, name, found2 := strings.Cut(rest, "/")
	return fleet.Backend{Kind: fleet.BackendKind(kind), Name: fleet.ServiceName{Namespace: namespace, Name: name}}, found && found2
}
