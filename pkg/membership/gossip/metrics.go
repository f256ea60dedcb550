package gossip

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"crossway.dev/crossway/pkg/membership"
)

// metrics are the counters of a node.
type metrics struct {
	received, sent atomic.Uint64 // bytes, those of TLS too
	beats          atomic.Uint64
	dropped        counters // packets, by reason
	refused        counters // connections and nodes, by reason
}

// counters count by a reason, of which there are few.
type counters struct {
	mu sync.Mutex // guards of
	of map[string]uint64
}

// Add counts one.
func (c *counters) Add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]uint64{}
	}
	c.of[reason]++
}

func (c *counters) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of)
}

var (
	bytesDesc   = prometheus.NewDesc("crossway_membership_bytes_total", "Bytes of gossip and Beats, those of TLS too.", []string{"direction"}, nil)
	beatsDesc   = prometheus.NewDesc("crossway_membership_beats_total", "Beats that came over a node's own connection.", nil, nil)
	droppedDesc = prometheus.NewDesc("crossway_membership_packets_dropped_total", "Packets of the ring that were dropped, by reason.", []string{"reason"}, nil)
	refusedDesc = prometheus.NewDesc("crossway_membership_refused_total", "Connections that were refused or cut, and nodes that the ring did not take in.", []string{"reason"}, nil)
	openDesc    = prometheus.NewDesc("crossway_membership_connections", "Open connections with other nodes.", nil, nil)
	nodesDesc   = prometheus.NewDesc("crossway_membership_nodes", "Nodes of the fleet by what this replica knows of them.", []string{"state"}, nil)
	ringDesc    = prometheus.NewDesc("crossway_membership_ring_nodes", "Nodes that memberlist has here.", nil, nil)
)

// Describe implements prometheus.Collector.
func (n *Node) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bytesDesc, beatsDesc, droppedDesc, refusedDesc, openDesc, nodesDesc, ringDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (n *Node) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	counter(bytesDesc, n.metrics.received.Load(), "received")
	counter(bytesDesc, n.metrics.sent.Load(), "sent")
	counter(beatsDesc, n.metrics.beats.Load())
	for reason, value := range n.metrics.dropped.all() {
		counter(droppedDesc, value, reason)
	}
	for reason, value := range n.metrics.refused.all() {
		counter(refusedDesc, value, reason)
	}
	gauge(openDesc, n.peers.count())
	gauge(ringDesc, n.RingSize())
	states := map[membership.State]int{}
	for _, v := range n.Verdicts() {
		states[v.State]++
	}
	for state, count := range states {
		gauge(nodesDesc, count, string(state))
	}
}
