package server

import (
	"maps"
	"slices"
	"sync"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/batch"
)

const (
	// usedReports is for how many reports after its last request a cluster is in each of
	// them: two minutes, longer than an import that fails keeps its demand without one.
	usedReports = 120
	// reportBudget bounds the clusters without requests that a report has, by the bytes of
	// their load assignments. An endpoint has some 40, and Envoy reads its counters in
	// about 0.1 us, twice: when the cluster is named, and for the report. So this is 13,000
	// endpoints, and 3 ms of Envoy's main thread, which also takes the configuration.
	reportBudget = 512 << 10
	// A report comes within this part of the interval after a cluster was found to be used.
	wakePart = 4
)

// watch decides which clusters one edge reports. For a report Envoy reads the counters of
// all endpoints of all clusters that it was asked for, used or not. So it is asked for
// those with requests, and for a part of the others, in turn. Where all of them fit into
// the budget, it is asked for all.
type watch struct {
	interval time.Duration
	changed  batch.Signal // there may be a response to send

	mu      sync.Mutex // guards the rest
	sizes   map[string]int
	names   []string // of sizes, sorted
	total   int      // of sizes
	changes uint64
	used    map[string]time.Time // when a cluster last had a request; none: for long
	last    string               // of the clusters without requests, the last one that was asked for
	named   []string             // the clusters of the last response, sorted; nil: all
	begun   bool
	// due: a response is to be sent, and urgent: the report that it asks for, too.
	due, urgent bool
	// hurried: the last response asked for an early report.
	hurried bool
	wokenAt time.Time
}

func newWatch(interval time.Duration) *watch {
	return &watch{interval: interval, changed: batch.NewSignal(), used: map[string]time.Time{}}
}

// setSizes says which clusters there are, and how large the load assignment of each is.
// A cluster that is new is watched as if it were used. changes is the version of sizes.
func (w *watch) setSizes(sizes map[string]int, changes uint64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sizes != nil && w.changes == changes {
		return
	}
	total, others := 0, len(sizes) != len(w.sizes)
	for name, size := range sizes {
		total += size
		if _, known := w.sizes[name]; !known {
			w.used[name], others = now, true
		}
	}
	for name := range w.sizes {
		if _, exists := sizes[name]; !exists {
			delete(w.used, name)
		}
	}
	if w.sizes, w.total, w.changes = sizes, total, changes; others {
		w.names = slices.Sorted(maps.Keys(sizes))
	}
}

// observe takes a report, after which the next ones may have other clusters.
func (w *watch) observe(report []*endpoint.ClusterStats, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range report {
		if _, exists := w.sizes[c.ClusterName]; exists && (c.TotalDroppedRequests > 0 || len(c.UpstreamLocalityStats) > 0) {
			w.used[c.ClusterName] = now
		}
	}
	maps.DeleteFunc(w.used, func(_ string, at time.Time) bool { return now.Sub(at) > usedReports*w.interval })
	w.due = true
	w.changed.Set()
}

// wake says that a cluster has requests. If the edge was not asked for it, the next
// report comes soon and has it: at most once in an interval, since each such report
// costs the edge as much as a regular one.
func (w *watch) wake(name string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, exists := w.sizes[name]; !exists || w.named == nil {
		return
	}
	if _, used := w.used[name]; used {
		return
	}
	w.used[name] = now
	if now.Sub(w.wokenAt) >= w.interval {
		w.wokenAt, w.due, w.urgent = now, true, true
		w.changed.Set()
	}
}

// next is the response to send, nil if the last one still holds.
func (w *watch) next() *loadstats.LoadStatsResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.due {
		return nil
	}
	w.due = false
	names, interval := w.choose(), w.interval
	if w.begun && !w.hurried && !w.urgent && (names == nil) == (w.named == nil) && slices.Equal(names, w.named) {
		return nil
	}
	if w.urgent {
		interval /= wakePart
	}
	w.begun, w.named, w.hurried, w.urgent = true, names, w.urgent, false
	return &loadstats.LoadStatsResponse{SendAllClusters: names == nil, Clusters: names, LoadReportingInterval: durationpb.New(interval)}
}

// choose is the clusters to ask for, sorted; nil if it is all. mu is held.
func (w *watch) choose() []string {
	if w.total <= reportBudget {
		return nil
	}
	first, _ := slices.BinarySearch(w.names, w.last+"\x00")
	names, left, idle := slices.Collect(maps.Keys(w.used)), reportBudget, 0
	for i := range w.names {
		name := w.names[(first+i)%len(w.names)]
		if _, used := w.used[name]; used {
			continue
		}
		if left -= w.sizes[name]; left < 0 && idle > 0 {
			break
		}
		names, w.last = append(names, name), name
		idle++
	}
	if idle == 0 {
		return nil
	}
	slices.Sort(names)
	return names
}
