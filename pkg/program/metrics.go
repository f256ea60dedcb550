package program

import "github.com/prometheus/client_golang/prometheus"

var (
	buildDesc = prometheus.NewDesc("crossway_build_info", "1; a label has the version of the program.", []string{"program", "version"}, nil)
	leadsDesc = prometheus.NewDesc("crossway_leads", "1 on the replica that leads, which alone writes to the API server.", []string{"program"}, nil)
	stuckDesc = prometheus.NewDesc("crossway_stuck", "1 for a part of the program that has not answered for 30 s; /healthz fails then.", []string{"program", "part"}, nil)
)

// Metrics are what every program says of itself: its version, whether this replica
// leads, and which of its parts are stuck.
type Metrics struct {
	Program    string // its name
	Leadership *Leadership
	Watchdog   *Watchdog
}

// Describe implements prometheus.Collector.
func (Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, leadsDesc, stuckDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m Metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(buildDesc, 1, m.Program, Version())
	gauge(leadsDesc, OneIf(m.Leadership.Leads()), m.Program)
	for part := range m.Watchdog.Pings {
		gauge(stuckDesc, OneIf(m.Watchdog.silence(part) > maxSilence), m.Program, part)
	}
}

// OneIf is the value of a gauge that says whether something is so.
func OneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
