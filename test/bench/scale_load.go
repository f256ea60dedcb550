package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// loadedPerEdge is how many assignments each mock edge reports load of.
	loadedPerEdge = 100
	// requestsReported is how many requests of each assignment an edge reports a second.
	requestsReported = 20
	loadSpan         = 15 * time.Second
)

// load has all mock edges report load each second from now on, and measures what that costs the replicas, which tell each
// other.
func (s *Scale) load(ctx context.Context) error {
	exporters := map[string]*mockMember{}
	for _, m := range s.members {
		for _, e := range m.exports {
			exporters[e.assignment()] = m
		}
	}
	for _, e := range s.edges {
		stats := e.clusterStats(exporters)
		e.loads.Store(&stats)
	}
	if err := pause(ctx, loadSpan); err != nil { // until demand is known and shares are settled
		return err
	}
	counters := map[string]string{"scale_link_kb_per_s": "crossway_replica_sent_bytes_total", "scale_gossip_kb_per_s": "crossway_membership_bytes_total"}
	before := map[string]float64{}
	for figure, name := range counters {
		var err error
		if before[figure], err = s.counter(ctx, name); err != nil {
			return err
		}
	}
	cpu, began := s.hubCPU(), time.Now()
	if err := pause(ctx, loadSpan); err != nil {
		return err
	}
	took := time.Since(began)
	s.figures["scale_load_cpu_percent"] = Value(100 * float64(s.hubCPU()-cpu) / float64(took) / hubReplicas)
	for figure, name := range counters {
		after, err := s.counter(ctx, name)
		if err != nil {
			return err
		}
		s.figures[figure] = Value((after - before[figure]) / 1000 / took.Seconds() / hubReplicas)
	}
	return nil
}

// counter is the sum of a counter over its labels and all replicas; 0 where there is none.
func (s *Scale) counter(ctx context.Context, name string) (sum float64, err error) {
	for _, pod := range s.pods {
		n, err := s.counterOf(ctx, pod, name)
		if err != nil {
			return 0, fmt.Errorf("metric %s of pod %s: %w", name, pod, err)
		}
		sum += n
	}
	return sum, nil
}

func (s *Scale) counterOf(ctx context.Context, pod, name string) (sum float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := s.clientIn(pod).Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		at := strings.LastIndexByte(lines.Text(), ' ') // a label may have a space
		if at < 0 || lines.Text()[:at] != name && !strings.HasPrefix(lines.Text(), name+"{") {
			continue
		}
		n, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, lines.Err()
}

// clusterStats is what an edge reports: requests of some of its assignments, to one member of each.
func (e *mockEdge) clusterStats(exporters map[string]*mockMember) (out []*endpointv3.ClusterStats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.versions[resourcev3.EndpointType] {
		m := exporters[routeOf(name)]
		if m == nil {
			continue
		}
		team, service, _ := strings.Cut(strings.TrimSuffix(routeOf(name), "/"), "/")
		out = append(out, &endpointv3.ClusterStats{ClusterName: name, LoadReportInterval: durationpb.New(time.Second),
			UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{TotalIssuedRequests: requestsReported, TotalSuccessfulRequests: requestsReported,
				Locality: &corev3.Locality{SubZone: m.name() + "/" + team + "/" + service}}}})
		if len(out) == loadedPerEdge {
			break
		}
	}
	return out
}

// report reports load each second, once there is some to report, until ctx ends.
func (e *mockEdge) report(ctx context.Context, connection *grpc.ClientConn) {
	var stream loadstats.LoadReportingService_StreamLoadStatsClient
	for pause(ctx, time.Second) == nil {
		loads := e.loads.Load()
		if loads == nil {
			continue
		}
		var err error
		if stream == nil {
			if stream, err = loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx); err != nil {
				return // with the connection
			}
			go func() { // what it is asked to report does not matter
				for stream.RecvMsg(&loadstats.LoadStatsResponse{}) == nil {
				}
			}()
		}
		if stream.Send(&loadstats.LoadStatsRequest{Node: &corev3.Node{Id: e.node, Cluster: e.pool}, ClusterStats: *loads}) != nil {
			return
		}
	}
}
