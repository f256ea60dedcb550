package reconciler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	builds prometheus.Histogram
	nacks  *prometheus.CounterVec
	// refusing are the connected edges that refuse something.
	refusing *prometheus.GaugeVec
}

func newMetrics() metrics {
	return metrics{
		builds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "crossway_gateway_build_seconds", Help: "Time from taking in changes to publishing them and handing over their reports.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossway_gateway_nacks_total", Help: "NACKs of the edges of a pool, by type of resource; condition ConfigurationAccepted of the EdgePool says which edges refuse what.",
		}, []string{"pool", "type"}),
		refusing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "crossway_gateway_refusing_edges", Help: "Connected edges of a pool that refuse a part of what they are sent.",
		}, []string{"pool"}),
	}
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.builds, m.nacks, m.refusing}
}
