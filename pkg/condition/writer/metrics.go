package writer

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ writes, conflicts *prometheus.CounterVec }

func newMetrics() metrics {
	return metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossway_status_writes_total", Help: "Status writes, by kind and result (written, unchanged, error).",
		}, []string{"kind", "result"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossway_status_conflicts_total", Help: "Status writes that conflicted with another writer's, by kind; each is retried.",
		}, []string{"kind"}),
	}
}
