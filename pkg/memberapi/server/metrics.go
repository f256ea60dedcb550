package server

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests *prometheus.CounterVec
	passes   prometheus.Histogram
}

func newMetrics() metrics {
	return metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "crossway_member_api_requests_total",
			Help: "Requests to the member API by resource, verb and code; a watch counts when it ends."}, []string{"resource", "verb", "code"}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "crossway_member_api_pass_seconds",
			Help: "How long it took to take changes of slices, services or MemberClusters into the member API.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
	}
}

var watchesDesc = prometheus.NewDesc("crossway_member_api_watches", "Open watches of the member API.", []string{"member", "resource"}, nil)

// Describe implements prometheus.Collector.
func (s *Server) Describe(out chan<- *prometheus.Desc) {
	s.metrics.requests.Describe(out)
	s.metrics.passes.Describe(out)
	out <- watchesDesc
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(out chan<- prometheus.Metric) {
	s.metrics.requests.Collect(out)
	s.metrics.passes.Collect(out)
	s.openMu.Lock()
	defer s.openMu.Unlock()
	for cluster, c := range s.open {
		count := map[string]int{}
		for e := c.watches.Front(); e != nil; e = e.Next() {
			count[e.Value.(*openWatch).resource]++
		}
		for resource, n := range count {
			out <- prometheus.MustNewConstMetric(watchesDesc, prometheus.GaugeValue, float64(n), string(cluster), resource)
		}
	}
}
