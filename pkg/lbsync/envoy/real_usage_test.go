package envoy_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// reports are the load reports of one edge.
type reports struct {
	mu   sync.Mutex
	list []server.LoadReport
	at   []time.Time
}

func (r *reports) add(_ server.Edge, one server.LoadReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list, r.at = append(r.list, one), append(r.at, time.Now())
}

// clusters are in the last report.
func (r *reports) clusters() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, c := range r.list[max(0, len(r.list)-1):] {
		for _, one := range c.Clusters {
			names = append(names, one.Cluster)
		}
	}
	return names
}

// requests counts what was reported for a cluster, and when first.
func (r *reports) requests(cluster string) (n uint64, first time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, one := range r.list {
		for _, c := range one.Clusters {
			for _, l := range c.Localities {
				if c.Cluster == cluster {
					if n += l.Issued; first.IsZero() {
						first = r.at[i]
					}
				}
			}
		}
	}
	return n, first
}

const withLoadReports = `cluster_manager: {load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}`

// mainThread is the processor time of an Envoy's main thread.
func mainThread(t *testing.T, pid int) time.Duration {
	t.Helper()
	return threads(t, fmt.Sprintf("/proc/%d/task/%[1]d/schedstat", pid))
}

// allThreads is the processor time of an Envoy.
func allThreads(t *testing.T, pid int) time.Duration {
	t.Helper()
	return threads(t, fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
}

func threads(t *testing.T, pattern string) (sum time.Duration) {
	t.Helper()
	files, _ := filepath.Glob(pattern)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var ns int64
		_, _ = fmt.Sscan(string(data), &ns)
		sum += time.Duration(ns)
	}
	return sum
}

// An Envoy is asked for load reports of few of its 1000 clusters while they have no
// requests, and looks rarely for endpoints to eject. When one of them has a burst, a report counts it within an interval or two.
func TestIdleClustersOnARealEnvoy(t *testing.T) {
	t.Parallel()
	const interval = 200 * time.Millisecond
	var got reports
	e := startHubEdgeWith(t, server.Config{ReportInterval: interval}, got.add, "--config-yaml", withLoadReports)
	p := large(1000)
	port := freePort(t)
	p.Listeners[0].Address, p.Listeners[0].Port = netip.MustParseAddr("127.0.0.1"), port
	const burst = 777
	var loads []server.Resource
	for i, a := range p.Assignments {
		var localities []lbsync.Locality
		for m := range 3 {
			l := locality(fmt.Sprint("m", m), traffic.TotalParts/3, netip.AddrPort{})
			l.Endpoints = nil
			for k := range 50 {
				l.Endpoints = append(l.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 2), byte(i<<6 | m), byte(k)}), 8080))
			}
			localities = append(localities, l)
		}
		if i == burst {
			localities = []lbsync.Locality{locality("here", traffic.TotalParts, backend(t, "here"))}
		}
		r, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: a.Key, Localities: localities})
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
	}
	e.hub.UpdateLoadAssignments("us", loads, nil)
	e.hub.SetResources("us", snapshot(1, envoy.Translate(p)))
	eventually(t, "the listener", func() bool { return strings.HasSuffix(e.stats("listener_manager.total_listeners_active"), ": 1") })
	deadline := time.Now().Add(3 * time.Minute)
	for n := 0; n == 0 || n > 150; n = len(got.clusters()) {
		if time.Now().After(deadline) {
			t.Fatalf("a report has %d clusters without requests", n)
		}
		time.Sleep(interval)
	}
	eventually(t, "a long interval of outlier detection", func() bool { return strings.Contains(e.page("/runtime"), `"final_value": "8000"`) })
	before, began := mainThread(t, e.process.Pid), time.Now()
	time.Sleep(5 * time.Second)
	t.Logf("idle: %.2f %% of a core", 100*float64(mainThread(t, e.process.Pid)-before)/float64(time.Since(began)))

	name := p.Assignments[burst].Key
	for slices.Contains(got.clusters(), name) { // not its turn
		time.Sleep(interval / 4)
	}
	began = time.Now()
	for n := 0; ; n++ {
		if _, at := got.requests(name); !at.IsZero() {
			t.Logf("noticed after %s and %d requests", at.Sub(began), n)
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("a burst on an idle cluster was not noticed")
		}
		ask(t, port, "GET", fmt.Sprintf("h%d.example", burst), "/", "")
	}
}
