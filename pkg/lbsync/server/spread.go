package server

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/pkg/replica"
)

// spreadTopic has the number of edges that each replica has of each pool.
const spreadTopic = "edge-count"

// spreadTimes are the times of a Spreader.
type spreadTimes struct {
	// tell is how often the others are told, when numbers changed.
	tell time.Duration
	// settle is how long a replica serves before others move edges to it: the hub's
	// Service leads nobody there sooner.
	settle time.Duration
	// move is between two edges that are moved: ten in a minute at most.
	move time.Duration
	// stay is how long an edge is left where it is after it has connected.
	stay time.Duration
}

// Spreader moves edges from this replica to others, while it has more of a pool than its
// part. An edge that is moved chooses another replica by the load balancer, which may lead
// it back here: for some seconds it is then refused, and tries again. A replica to which
// none comes is soon sent no more (replica.Moves).
type Spreader struct {
	server *Server
	link   replica.Link
	ready  <-chan struct{}
	topic  replica.Topic
	log    logr.Logger
	times  spreadTimes
	moved  time.Time // last
	moves  *replica.Moves

	mu     sync.Mutex
	others map[string]map[string]int // edges, by replica and pool
}

// edgeCounts is a value of spreadTopic.
type edgeCounts struct {
	Pools map[string]int `json:"pools"`
}

// NewSpreader makes a Spreader. The link has not been started yet; ready is closed when
// this replica serves edges.
func NewSpreader(s *Server, link replica.Link, ready <-chan struct{}, log logr.Logger) *Spreader {
	p := &Spreader{server: s, link: link, ready: ready, topic: link.Topic(spreadTopic), log: log, others: map[string]map[string]int{},
		times: spreadTimes{tell: 500 * time.Millisecond, settle: 10 * time.Second, move: 6 * time.Second, stay: 30 * time.Second}}
	p.moves = replica.NewMoves(p.times.move)
	p.topic.Subscribe(replica.Observer{
		Changed: func(name, _ string, value []byte) {
			var counts edgeCounts
			if err := json.Unmarshal(value, &counts); err != nil {
				log.V(1).Info("the number of edges of another replica is not readable", "replica", name, "reason", err.Error())
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.others[name] = counts.Pools
		},
		Deleted: func(name, _ string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.others, name)
		},
	})
	return p
}

// NeedLeaderElection says that every replica moves its own edges.
func (*Spreader) NeedLeaderElection() bool { return false }

// Start tells the others how many edges there are here, and moves some, until ctx ends.
func (p *Spreader) Start(ctx context.Context) error {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil
	}
	for wait := p.times.settle; ; wait = p.times.tell {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := p.step(time.Now()); err != nil {
			return err
		}
	}
}

// step tells how many edges there are here, and moves one of a pool that has too many.
func (p *Spreader) step(now time.Time) error {
	own := map[string]int{}
	for _, e := range p.server.Connected() {
		own[e.Identity.Pool]++
	}
	value, err := json.Marshal(edgeCounts{own})
	if err != nil {
		return err
	}
	p.topic.Set("edges", value)
	if now.Sub(p.moved) < p.times.move {
		return nil
	}
	for pool, n := range own {
		others := p.elsewhere(pool)
		if !p.moves.Due(now, pool, n, others) {
			continue
		}
		if edge := p.server.move(pool, p.times.stay); edge != "" {
			p.moved = now
			p.moves.Sent(now, pool, n, others)
			p.server.metrics.movedEdges.Inc()
			p.log.Info("ended the connection of an edge, since this replica has more of its pool than others", "edge", edge, "pool", pool, "edges", n)
			return nil
		}
	}
	return nil
}

// elsewhere is how many edges of a pool each of the other replicas has that take some.
func (p *Spreader) elsewhere(pool string) map[string]int {
	p.mu.Lock()
	told := maps.Clone(p.others)
	p.mu.Unlock()
	counts := map[string]int{}
	for _, r := range p.link.Replicas() {
		if pools, ok := told[r.Name]; ok && r.Connected && !r.Leaving {
			counts[r.Name] = pools[pool]
		}
	}
	return counts
}
