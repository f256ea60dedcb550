package reconciler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	builds prometheus.Histogram
	nacks  *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		builds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "crossway_gateway_build_seconds", Help: "Time from taking in changes to publishing them and handing over their reports.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossway_gateway_nacks_total", Help: "Resources that an edge NACKed, by type; the status of the route or Gateway says why.",
		}, []string{"type"}),
	}
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.builds, m.nacks}
}
