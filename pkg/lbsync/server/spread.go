package server

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/pkg/replica"
)

const (
	// moveInterval is between two edges that are moved: ten in a minute at most.
	moveInterval = 6 * time.Second
	// minStay is how long an edge is left where it is after it has connected, so that it is
	// moved once in that time at most, whichever replicas it comes to.
	minStay = 5 * time.Minute
	// spreadTopic has the number of edges of each replica.
	spreadTopic = "edge-count"
)

// Spreader moves edges away from this replica while it has many more than its part. Where
// they go is for the load balancer to say: one that comes back stays.
type Spreader struct {
	server            *Server
	link              replica.Link
	topic             replica.Topic
	log               logr.Logger
	interval, minStay time.Duration

	mu     sync.Mutex
	others map[string]int // edges, by replica
	spread replica.Spread
}

// edgeCount is a value of spreadTopic.
type edgeCount struct {
	Edges int `json:"edges"`
}

// NewSpreader makes a Spreader. The link has not been started yet.
func NewSpreader(s *Server, link replica.Link, log logr.Logger) *Spreader {
	p := &Spreader{server: s, link: link, topic: link.Topic(spreadTopic), log: log, interval: moveInterval, minStay: minStay, others: map[string]int{}}
	p.topic.Subscribe(replica.Observer{
		Changed: func(name, _ string, value []byte) {
			var count edgeCount
			if err := json.Unmarshal(value, &count); err != nil {
				log.V(1).Info("the number of edges of another replica is not readable", "replica", name, "reason", err.Error())
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.others[name] = count.Edges
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

// Start moves edges until ctx ends.
func (p *Spreader) Start(ctx context.Context) error {
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		if err := p.step(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// step tells how many edges there are here, and moves one if they are too many.
func (p *Spreader) step() error {
	own := len(p.server.Connected())
	value, err := json.Marshal(edgeCount{own})
	if err != nil {
		return err
	}
	p.topic.Set("edges", value)
	if !p.tooMany(own) {
		return nil
	}
	if edge := p.server.move(p.minStay); edge != "" {
		p.server.metrics.movedEdges.Inc()
		p.log.Info("ended the connection of an edge, since this replica has many more than others", "edge", edge, "edges", own)
	}
	return nil
}

func (p *Spreader) tooMany(own int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var others []int
	for _, r := range p.link.Replicas() {
		if count, told := p.others[r.Name]; told && r.Connected && !r.Leaving {
			others = append(others, count)
		}
	}
	return p.spread.TooMany(own, others)
}
