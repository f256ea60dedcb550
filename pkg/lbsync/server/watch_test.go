package server

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// thousand are the sizes of 1000 clusters with 150 endpoints each.
func thousand() map[string]int {
	sizes := map[string]int{}
	for i := range 1000 {
		sizes[fmt.Sprintf("c%03d", i)] = 6000
	}
	return sizes
}

// idleWatch is of an edge none of whose clusters has requests.
func idleWatch(sizes map[string]int) (w *watch, now time.Time) {
	w, now = newWatch(time.Second), time.Unix(0, 0)
	w.setSizes(sizes, 1, now)
	now = now.Add(time.Hour)
	return w, now
}

func stats(clusters ...string) (all []*endpoint.ClusterStats) {
	for _, name := range clusters {
		all = append(all, &endpoint.ClusterStats{ClusterName: name, UpstreamLocalityStats: []*endpoint.UpstreamLocalityStats{{TotalIssuedRequests: 1}}})
	}
	return all
}

// Where a report of everything costs an edge little, it is asked for all, once.
func TestFewEndpointsAreAllReported(t *testing.T) {
	w, now := idleWatch(map[string]int{"a": 100, "b": 6000})
	w.observe(nil, now)
	if r := w.next(); !r.GetSendAllClusters() || r.LoadReportingInterval.AsDuration() != time.Second {
		t.Errorf("an edge with few endpoints is asked for %v", r)
	}
	w.observe(stats("a"), now)
	w.wake("b", now)
	if r := w.next(); r != nil {
		t.Errorf("it is asked again: %v", r)
	}
}

// At first nothing is known, and all clusters are reported. Then those with requests are
// in each report, and each other one is in one of some.
func TestIdleClustersAreReportedInTurn(t *testing.T) {
	w, now := newWatch(time.Second), time.Unix(0, 0)
	w.setSizes(thousand(), 1, now)
	w.observe(nil, now)
	if r := w.next(); !r.GetSendAllClusters() {
		t.Errorf("at first an edge is asked for %d clusters, want all", len(r.GetClusters()))
	}
	now = now.Add(usedReports*time.Second + 1)
	turns := map[string]int{}
	const rounds = 24
	for range rounds {
		w.observe(stats("c007", "c900", "unknown"), now)
		names := w.next().GetClusters()
		if len(names) > 2+reportBudget/6000+1 || !slices.IsSorted(names) {
			t.Fatalf("a report has %d clusters", len(names))
		}
		for _, name := range names {
			turns[name]++
		}
		now = now.Add(time.Second)
	}
	if turns["c007"] != rounds || turns["c900"] != rounds || turns["unknown"] > 0 {
		t.Errorf("of %d reports, %d have a cluster with requests", rounds, turns["c007"])
	}
	delete(turns, "c007")
	delete(turns, "c900")
	if few, many := slices.Min(slices.Collect(maps.Values(turns))), slices.Max(slices.Collect(maps.Values(turns))); len(turns) != 998 || few < 1 || many > few+1 {
		t.Errorf("%d idle clusters were reported %d to %d times", len(turns), few, many)
	}
}

// A cluster that an edge uses again is in its next report, which comes early; then
// reports come as usual. Other clusters that are used meanwhile cost no early report.
func TestUsedClusterIsReportedSoon(t *testing.T) {
	w, now := idleWatch(thousand())
	w.observe(nil, now)
	first := w.next().GetClusters()
	w.wake("c999", now)
	r := w.next()
	if !slices.Contains(r.GetClusters(), "c999") || r.LoadReportingInterval.AsDuration() != time.Second/wakePart {
		t.Errorf("a cluster that is used again is not reported soon: %v", r)
	}
	w.wake("c998", now)
	w.wake("c999", now)
	w.wake("unknown", now)
	if r := w.next(); r != nil {
		t.Errorf("another one costs an early report, too: %v", r)
	}
	w.observe(stats("c999"), now.Add(time.Second/wakePart))
	r = w.next()
	if !slices.Contains(r.GetClusters(), "c998") || !slices.Contains(r.GetClusters(), "c999") || r.LoadReportingInterval.AsDuration() != time.Second {
		t.Errorf("then it is asked for %d clusters each %s", len(r.GetClusters()), r.LoadReportingInterval.AsDuration())
	}
	if slices.Contains(r.GetClusters(), first[0]) {
		t.Error("the idle clusters have no turns")
	}
}

// A cluster that is new is reported at once, one that is gone is not asked for.
func TestClustersComeAndGo(t *testing.T) {
	w, now := idleWatch(thousand())
	sizes := thousand()
	delete(sizes, "c000")
	sizes["new"] = 6000
	w.setSizes(sizes, 2, now)
	for range 30 {
		w.observe(stats("c000"), now)
		if names := w.next().GetClusters(); slices.Contains(names, "c000") || !slices.Contains(names, "new") {
			t.Fatalf("it is asked for %v", names)
		}
	}
}
