package server

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

// pool is the state of one pool and its open streams.
type pool struct {
	mu      sync.Mutex // guards all below and the state of every stream
	state   *delta.Pool
	streams map[*stream]struct{}
}

// stream is one open ADS stream.
type stream struct {
	edge    Edge
	pool    *pool
	state   *delta.Stream // guarded by pool.mu
	changed batch.Signal  // there may be a response to send
}

func newPool() *pool {
	return &pool{state: delta.NewPool(), streams: map[*stream]struct{}{}}
}

// setResources returns whether the progress of any edge changed.
func (p *pool) setResources(snapshot Snapshot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	progress := p.state.SetResources(snapshot)
	p.signalStreams()
	return progress
}

func (p *pool) updateLoadAssignments(changed []Resource, removed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.UpdateLoadAssignments(changed, removed)
	p.signalStreams()
}

func (p *pool) signalStreams() {
	for s := range p.streams {
		s.changed.Set()
	}
}

func (p *pool) open(edge Edge, warmTimeout time.Duration) *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &stream{edge: edge, pool: p, state: p.state.Open(edge.Node, warmTimeout), changed: batch.NewSignal()}
	p.streams[s] = struct{}{}
	return s
}

func (p *pool) close(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Close(s.state)
	delete(p.streams, s)
}

// edges are in the order in which their streams were opened.
func (p *pool) edges() []EdgeState {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make([]EdgeState, 0, len(p.streams))
	for _, s := range p.inOrder() {
		states = append(states, EdgeState{Edge: s.edge, Progress: s.state.Progress()})
	}
	return states
}

func (p *pool) inOrder() []*stream {
	return slices.SortedFunc(maps.Keys(p.streams), func(a, b *stream) int { return cmp.Compare(a.edge.Stream, b.edge.Stream) })
}

func (p *pool) describe() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.state.Describe()
	for _, s := range p.inOrder() {
		out += fmt.Sprintf(" edge %s of zone %s, stream %d: %s", s.edge.Node, s.edge.Identity.Zone, s.edge.Stream, s.state.Describe())
	}
	return out
}
