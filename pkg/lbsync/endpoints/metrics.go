package endpoints

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// maxImports bounds the label sets of a scrape: the first imports by name, those that are active before the others.
	maxImports = 1000
	// maxOpen does for open requests: the first imports, regions and clusters by name.
	maxOpen = 10_000
)

// minScrapeInterval is how long what was collected is given to further scrapes: who reaches the metrics may ask for them
// as often as they like.
const minScrapeInterval = time.Second

type metrics struct {
	published prometheus.Counter
	passes    prometheus.Histogram

	mu          *sync.Mutex // guards the rest; taken before Loop.mu
	collected   []prometheus.Metric
	collectedAt time.Time
}

func newMetrics() metrics {
	return metrics{
		mu: &sync.Mutex{},
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "crossway_load_assignments_published_total", Help: "Changed load assignments handed to the edges' pools, once per region.",
		}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "crossway_endpoints_pass_seconds", Help: "Time from taking in changed slices and reports to having published what they change.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
	}
}

var (
	demandDesc = prometheus.NewDesc(fleetload.DemandMetric,
		"What clients of a region send for an import, as estimated from load reports.", []string{"import", "region"}, nil)
	shareDesc = prometheus.NewDesc(fleetload.ShareMetric,
		"Part of a region's requests for an import that goes to a cluster, 0 to 1.", []string{"import", "region", "cluster"}, nil)
	heldOutDesc = prometheus.NewDesc(fleetload.HeldOutMetric,
		"1 for a cluster to which all requests from a region fail: it gets only probes, unless that is so of all clusters.", []string{"import", "region", "cluster"}, nil)
	downDesc = prometheus.NewDesc("crossway_import_down",
		"1 for an import all of whose clusters are dead in a region: a rule's other backends have its weight.", []string{"import", "region"}, nil)
	capacityDesc = prometheus.NewDesc(fleetload.CapacityMetric,
		"What a cluster's part of an import takes: ready endpoints x rate x scaler. Absent without a rate.", []string{"import", "cluster"}, nil)
	readyDesc = prometheus.NewDesc(fleetload.ReadyMetric,
		"Ready endpoints of a cluster's part of an import that routes use, admitted ones only. 0 without a cluster: no cluster has a part.", []string{"import", "cluster"}, nil)
	openDesc = prometheus.NewDesc(fleetload.OpenMetric,
		"Requests from a region that a cluster has not answered to their end, when edges last reported.", []string{"import", "region", "cluster"}, nil)
	drainedDesc = prometheus.NewDesc(fleetload.DrainedMetric,
		"Part of a cluster's requests that other clusters get, because it is drained or drains, 0 to 1.", []string{"cluster"}, nil)
	overlapDesc = prometheus.NewDesc("crossway_assignment_overlapping_backends",
		"Backends of a route's assignments that share addresses with one before them; load reports count those requests for the first.", []string{"route"}, nil)
)

var deciderDesc = prometheus.NewDesc("crossway_shares_decided_by",
	"1 for the replica of the hub that divides the requests of all edges; others adopt its shares. Each replica says whom it follows; the only one has no name.",
	[]string{"replica"}, nil)

var thinnedDesc = prometheus.NewDesc("crossway_endpoints_thinned",
	"Namespaces whose routes would make too many copies of endpoints: their clusters have one of so many of their own endpoints, or of their spares.",
	[]string{"namespace", "endpoints"}, nil)

// Describe implements prometheus.Collector.
func (l *Loop) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{demandDesc, shareDesc, heldOutDesc, downDesc, capacityDesc, readyDesc, openDesc, drainedDesc, overlapDesc, thinnedDesc, deciderDesc} {
		out <- d
	}
	l.metrics.published.Describe(out)
	l.metrics.passes.Describe(out)
}

// Collect implements prometheus.Collector.
func (l *Loop) Collect(out chan<- prometheus.Metric) {
	l.metrics.published.Collect(out)
	l.metrics.passes.Collect(out)
	l.metrics.mu.Lock()
	if now := l.config.Clock.Now(); now.Sub(l.metrics.collectedAt) >= minScrapeInterval {
		l.metrics.collected, l.metrics.collectedAt = l.collect(), now
	}
	collected := l.metrics.collected
	l.metrics.mu.Unlock()
	for _, m := range collected { // out may block
		out <- m
	}
}

// collect reads the state when it is asked for, so that no event pays for a metric.
func (l *Loop) collect() (collected []prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		collected = append(collected, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var active, idle []fleet.Backend
	for _, backend := range l.state.Backends() {
		switch {
		case backend.Kind != fleet.Import:
		case l.state.Active(backend):
			active = append(active, backend)
		default:
			idle = append(idle, backend)
		}
	}
	imports := slices.Concat(active, idle)
	for _, backend := range imports[:min(len(imports), maxImports)] {
		b, _ := l.state.Backend(backend)
		collectBackend(b, gauge)
	}
	all := l.state.OpenRequests()
	for _, open := range all[:min(len(all), maxOpen)] {
		gauge(openDesc, float64(open.Count), open.Backend.Name.String(), open.Region, string(open.Cluster))
	}
	gauge(deciderDesc, 1, l.state.Decider())
	for cluster, drained := range l.state.Drained() {
		gauge(drainedDesc, drained, string(cluster))
	}
	for route, overlaps := range l.overlaps() {
		gauge(overlapDesc, float64(overlaps), route)
	}
	for namespace, divisors := range l.state.Divisors() {
		gauge(thinnedDesc, float64(divisors.Own), namespace, "own")
		gauge(thinnedDesc, float64(divisors.Fallback), namespace, "spare")
	}
	return collected
}

func collectBackend(b state.BackendStatus, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	name := b.Backend.Name.String()
	for _, r := range b.Regions {
		gauge(demandDesc, r.Demand, name, r.Region)
		for _, m := range r.HeldOut {
			gauge(heldOutDesc, 1, name, r.Region, string(m.Cluster))
		}
		if r.Down() {
			gauge(downDesc, 1, name, r.Region)
		}
		for _, s := range r.Shares {
			gauge(shareDesc, float64(s.Parts)/traffic.TotalParts, name, r.Region, string(s.Cluster))
		}
	}
	if len(b.Members) == 0 { // else nobody could tell it from an import that no route uses
		gauge(readyDesc, 0, name, "")
	}
	for _, m := range b.Members {
		gauge(readyDesc, float64(m.Ready), name, string(m.Cluster))
		if b.Rate > 0 {
			gauge(capacityDesc, float64(m.Ready)*b.Rate*m.Scaler, name, string(m.Cluster))
		}
	}
}

// overlaps counts, by route, the backends that share addresses: the most of any region.
func (l *Loop) overlaps() map[string]int {
	byKey := map[string]int{}
	for _, region := range l.published.regions {
		for key, a := range region {
			if a.overlaps > 0 {
				byKey[key] = max(byKey[key], a.overlaps)
			}
		}
	}
	out := map[string]int{}
	for key, n := range byKey {
		if a, ok := l.state.Assignment(key); ok {
			out[model.RouteName(a.Route)] += n
		}
	}
	return out
}
