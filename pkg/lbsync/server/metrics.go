package server

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connected                    *prometheus.GaugeVec
	connectedLimit               prometheus.Gauge
	pushes, acks, nacks          *prometheus.CounterVec
	loadReports, rejectedStreams *prometheus.CounterVec
	pushToAck                    *prometheus.HistogramVec
	omittedLines                 prometheus.Counter
	refusedCertificates          prometheus.Counter
	movedEdges                   prometheus.Counter
}

func newMetrics(maxEdges int) metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	limit := prometheus.NewGauge(prometheus.GaugeOpts{Name: "crossway_xds_connected_edges_limit", Help: "How many edges one pool may have connected."})
	limit.Set(float64(maxEdges))
	return metrics{
		connectedLimit: limit,
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "crossway_xds_connected_edges", Help: "Edges with an open configuration stream, by pool.",
		}, []string{"pool"}),
		pushes:          counter("crossway_xds_pushes_total", "Responses sent to edges, by resource type.", "type"),
		acks:            counter("crossway_xds_acks_total", "Responses that an edge ACKed, by resource type.", "type"),
		nacks:           counter("crossway_xds_nacks_total", "Responses that an edge NACKed, by resource type.", "type"),
		loadReports:     counter("crossway_xds_load_reports_total", "Load reports received, by pool.", "pool"),
		rejectedStreams: counter("crossway_xds_refused_streams_total", "Streams rejected, or ended by the hub, by service; the log says why.", "service"),
		omittedLines: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "crossway_xds_omitted_log_lines_total", Help: "Log lines that edges caused too quickly, and that were not written.",
		}),
		refusedCertificates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "crossway_xds_refused_certificates_total", Help: "Connections whose certificate has ended, or was signed by no CA that the hub trusts; the log says whose.",
		}),
		movedEdges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "crossway_xds_moved_edges_total", Help: "Edges whose connection this replica ended because it had many more than others.",
		}),
		pushToAck: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "crossway_xds_push_to_ack_seconds", Help: "Time from sending a response to the edge's answer, by resource type.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"type"}),
	}
}

// Collectors are the server's metrics, for the caller to register.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.connected, m.connectedLimit, m.pushes, m.acks, m.nacks, m.loadReports, m.rejectedStreams, m.pushToAck, m.omittedLines, m.refusedCertificates, m.movedEdges}
}
