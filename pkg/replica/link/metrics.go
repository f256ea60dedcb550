package link

import (
	"github.com/prometheus/client_golang/prometheus"

	"crossway.dev/crossway/pkg/fleetload"
)

type metrics struct {
	sent, received, refusedValues *prometheus.CounterVec
	silences, refusedConnections  prometheus.Counter
}

func newMetrics() metrics {
	vector := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"topic"})
	}
	return metrics{
		sent:          vector("crossway_replica_sent_bytes_total", "Keys and values sent to other replicas of the hub, by topic."),
		received:      vector("crossway_replica_received_bytes_total", "Keys and values received from other replicas of the hub, by topic."),
		refusedValues: vector("crossway_replica_refused_values_total", "Values that are beyond a limit and were not sent to other replicas, by topic."),
		silences: prometheus.NewCounter(prometheus.CounterOpts{Name: "crossway_replica_silences_total",
			Help: "How often another replica that was heard became silent: restarts are among them."}),
		refusedConnections: prometheus.NewCounter(prometheus.CounterOpts{Name: "crossway_replica_refused_connections_total",
			Help: "Connections to the port for replicas of who is none, or that are too many."}),
	}
}

var (
	knownDesc     = prometheus.NewDesc(fleetload.KnownMetric, "Other replicas of the hub whose pods are running.", nil, nil)
	connectedDesc = prometheus.NewDesc(fleetload.ConnectedMetric, "Other replicas of the hub that are known and heard.", nil, nil)
	valuesDesc    = prometheus.NewDesc("crossway_replica_values_bytes", "Values that this replica shows to the others, by topic.", []string{"topic"}, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{knownDesc, connectedDesc, valuesDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	l := c.link
	l.mu.Lock()
	known, connected, sizes := 0, 0, l.own.Sizes()
	for _, o := range l.others {
		if o.known {
			known++
			if o.presence.Heard() {
				connected++
			}
		}
	}
	l.mu.Unlock()
	out <- prometheus.MustNewConstMetric(knownDesc, prometheus.GaugeValue, float64(known))
	out <- prometheus.MustNewConstMetric(connectedDesc, prometheus.GaugeValue, float64(connected))
	for topic, size := range sizes {
		out <- prometheus.MustNewConstMetric(valuesDesc, prometheus.GaugeValue, float64(size), topic)
	}
}

// collector reads a Link when it is scraped.
type collector struct{ link *Link }

// Collectors are the Link's metrics, for the caller to register.
func (l *Link) Collectors() []prometheus.Collector {
	m := l.metrics
	return []prometheus.Collector{collector{l}, m.sent, m.received, m.refusedValues, m.silences, m.refusedConnections}
}
