package server

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

// pool is the state of one pool and its open streams. What an edge sends is
// processed under mu. Publishers do not wait for it: they leave their changes in
// published, and whoever has mu takes them over before it does anything else.
type pool struct {
	name     string
	notify   func(pool string) // that edges changed
	quota    quota
	sessions atomic.Int32                // open streams of configuration and load reports
	usages   atomic.Int32                // open streams of usage
	edges    atomic.Pointer[[]EdgeState] // in the order in which their streams were opened

	mu      sync.Mutex // guards all below and the state of every stream; see lock
	state   *delta.Pool
	streams map[string]*stream // by edge
	changed bool               // edges is to be made again
	// interval is that of outlier detection, for the cluster sizes of version measured.
	interval time.Duration
	measured uint64

	changesMu sync.Mutex // guards published
	published []func()   // changes of state

	claimsMu sync.Mutex // guards claims
	claims   map[claim]*session
}

// stream is one open ADS stream.
type stream struct {
	edge    Edge
	pool    *pool
	state   *delta.Stream // guarded by pool.mu
	changed batch.Signal  // there may be a response to send
}

// claim names a service for one edge.
type claim struct {
	service service
	edge    string
}

// key names an edge among those of its pool. The certificate is the pool's, so whoever
// has it may use any edge's name, but hardly its address: from elsewhere the same name
// is another edge, which takes nothing from this one. An honest edge that reconnects
// from another address, behind a NAT with several, counts twice until keepalive ends
// its dead connection.
func (e Edge) key() string { return e.Identity.Zone + "/" + e.Source + "/" + e.Node }

func newPool(name string, maxEdges int, notify func(string)) *pool {
	p := &pool{name: name, notify: notify, quota: newQuota(maxEdges), state: delta.NewPool(), streams: map[string]*stream{}, claims: map[claim]*session{}}
	p.edges.Store(&[]EdgeState{})
	p.setInterval(minInterval)
	return p
}

// lock takes mu, and over what was published.
func (p *pool) lock() {
	p.mu.Lock()
	p.takeOver()
}

// unlock gives mu up. What was published meanwhile is taken over by the next who
// has mu: this goroutine, if there is no other.
func (p *pool) unlock() {
	for {
		changed := p.changed
		if p.changed = false; changed {
			edges := p.edgeStates()
			p.edges.Store(&edges)
		}
		p.mu.Unlock()
		if changed {
			p.notify(p.name)
		}
		p.changesMu.Lock()
		left := len(p.published) > 0
		p.changesMu.Unlock()
		if !left || !p.mu.TryLock() {
			return
		}
		p.takeOver()
	}
}

func (p *pool) takeOver() {
	p.changesMu.Lock()
	changes := p.published
	p.published = nil
	p.changesMu.Unlock()
	for _, change := range changes {
		change()
	}
	if len(changes) > 0 {
		for _, s := range p.streams {
			s.changed.Set()
		}
	}
}

func (p *pool) publish(change func()) {
	p.changesMu.Lock()
	p.published = append(p.published, change)
	p.changesMu.Unlock()
	if p.mu.TryLock() {
		p.takeOver()
		p.unlock()
	}
}

func (p *pool) setResources(snapshot Snapshot) {
	p.publish(func() {
		p.state.SetResources(snapshot)
		p.changed = true // a NACK may be about an older version now
	})
}

func (p *pool) updateLoadAssignments(changed []Resource, removed []string) {
	p.publish(func() { p.state.UpdateLoadAssignments(changed, removed) })
}

// claim gives a service of an edge to a session, and returns the one that had it.
func (p *pool) claim(open *session, edge Edge) (older *session, err error) {
	p.claimsMu.Lock()
	defer p.claimsMu.Unlock()
	if open.released {
		return nil, status.Error(codes.Canceled, "the stream has ended")
	}
	mine := claim{open.service, edge.key()}
	older = p.claims[mine]
	if older == nil {
		edges := 0
		for c := range p.claims {
			if c.service == open.service {
				edges++
			}
		}
		if edges >= p.quota.maxEdges {
			return nil, status.Errorf(codes.ResourceExhausted, "pool %q has %d edges already, which is the most that it may have", p.name, edges)
		}
	}
	p.claims[mine] = open
	return older, nil
}

// release ends the claim of a session, unless a newer one has it. A request that is
// still being processed claims nothing any more: nobody would release it.
func (p *pool) release(open *session) {
	p.claimsMu.Lock()
	defer p.claimsMu.Unlock()
	open.released = true
	maps.DeleteFunc(p.claims, func(_ claim, s *session) bool { return s == open })
}

// holds says whether a session still has its claim.
func (p *pool) holds(open *session, edge Edge) bool {
	p.claimsMu.Lock()
	defer p.claimsMu.Unlock()
	return p.claims[claim{open.service, edge.key()}] == open
}

// setWatch says what decides which clusters the edge of a session reports.
func (p *pool) setWatch(open *session, w *watch) {
	p.claimsMu.Lock()
	defer p.claimsMu.Unlock()
	open.watch = w
}

// watchOf is that of an edge; nil if it reports no load.
func (p *pool) watchOf(edge Edge) *watch {
	p.claimsMu.Lock()
	defer p.claimsMu.Unlock()
	if open := p.claims[claim{load, edge.key()}]; open != nil {
		return open.watch
	}
	return nil
}

// open adds the stream of an edge in place of its older one. It returns nil if the
// edge has a newer stream by now.
func (p *pool) open(open *session, edge Edge, warmTimeout time.Duration) *stream {
	p.lock()
	defer p.unlock()
	if !p.holds(open, edge) {
		return nil
	}
	if older := p.streams[edge.key()]; older != nil {
		p.state.Close(older.state)
	}
	s := &stream{edge: edge, pool: p, state: p.state.Open(edge.key(), warmTimeout), changed: batch.NewSignal()}
	s.state.ID = edge.Stream
	p.streams[edge.key()] = s
	p.changed = true
	return s
}

func (p *pool) close(s *stream) {
	p.lock()
	defer p.unlock()
	p.state.Close(s.state)
	if p.streams[s.edge.key()] == s {
		delete(p.streams, s.edge.key())
	}
	p.changed = true
}

// edgeStates copies what each edge has done. mu is held.
func (p *pool) edgeStates() []EdgeState {
	states := make([]EdgeState, 0, len(p.streams))
	for _, s := range p.inOrder() {
		states = append(states, EdgeState{Edge: s.edge, Progress: s.state.Progress()})
	}
	return states
}

func (p *pool) inOrder() []*stream {
	return slices.SortedFunc(maps.Values(p.streams), func(a, b *stream) int { return cmp.Compare(a.edge.Stream, b.edge.Stream) })
}

func (p *pool) describe() string {
	p.lock()
	defer p.unlock()
	out := p.state.Describe()
	for _, s := range p.inOrder() {
		out += fmt.Sprintf(" edge %s of zone %s, stream %d: %s", s.edge.Node, s.edge.Identity.Zone, s.edge.Stream, s.state.Describe())
	}
	return out
}
