package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/lbsync/server"
)

func openUsage(t *testing.T, connection *grpc.ClientConn) accesslog.AccessLogService_StreamAccessLogsClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	t.Cleanup(cancel)
	stream, err := accesslog.NewAccessLogServiceClient(connection).StreamAccessLogs(ctx)
	check(t, err)
	return stream
}

// uses is one message of an edge that gave a request to a cluster.
func uses(node, cluster string) *accesslog.StreamAccessLogsMessage {
	return &accesslog.StreamAccessLogsMessage{
		Identifier: &accesslog.StreamAccessLogsMessage_Identifier{Node: &core.Node{Id: node}},
		LogEntries: &accesslog.StreamAccessLogsMessage_TcpLogs{TcpLogs: &accesslog.StreamAccessLogsMessage_TCPAccessLogEntries{
			LogEntry: []*data.TCPAccessLogEntry{{CommonProperties: &data.AccessLogCommon{UpstreamCluster: cluster}}}}},
	}
}

// manyEndpoints are 200 clusters with load assignments of 6000 bytes.
func manyEndpoints() (names []string, s server.Snapshot, assignments []server.Resource) {
	var clusters []string
	for i := range 200 {
		name := fmt.Sprintf("c%03d", i)
		names = append(names, name)
		clusters = append(clusters, name+"@1")
		assignments = append(assignments, list(name+"@"+strings.Repeat("1", 6000))...)
	}
	return names, snapshot(1, "Cluster "+strings.Join(clusters, " ")), assignments
}

// asked is what an edge is asked to report, as it comes.
func asked(load loadstats.LoadReportingService_StreamLoadStatsClient) <-chan *loadstats.LoadStatsResponse {
	all := make(chan *loadstats.LoadStatsResponse, 10_000)
	go func() {
		for {
			r, err := load.Recv()
			if err != nil {
				return
			}
			all <- r
		}
	}()
	return all
}

// latest waits until nothing more comes, and returns the last that came; nil if none did.
func latest(all <-chan *loadstats.LoadStatsResponse) (last *loadstats.LoadStatsResponse) {
	for {
		select {
		case last = <-all:
		case <-time.After(500 * time.Millisecond):
			return last
		}
	}
}

// An edge is asked for few of many idle clusters. When it says that it uses another one,
// it is asked for that, early. Where it is not the edge itself that says so, by name and
// address, nothing changes.
func TestUsage(t *testing.T) {
	const interval = 20 * time.Millisecond
	h := newHub(t, server.Config{ReportInterval: interval})
	names, s, assignments := manyEndpoints()
	h.UpdateLoadAssignments(pool, assignments, nil)
	h.SetResources(pool, s)
	h.forgetful = true
	connection := h.dial(h.certificate(usEdge))
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	load, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx)
	check(t, err)
	all := asked(load)
	check(t, load.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "envoy-0"}}))
	if r := latest(all); !r.GetSendAllClusters() {
		t.Errorf("at first the edge is asked for %d clusters, want all", len(r.GetClusters()))
	}
	for range 150 { // longer than a cluster without requests counts as used
		time.Sleep(interval)
		check(t, load.Send(&loadstats.LoadStatsRequest{}))
	}
	now := latest(all)
	idle := slices.IndexFunc(names, func(n string) bool { return !slices.Contains(now.GetClusters(), n) })
	if len(now.GetClusters()) == 0 || len(now.GetClusters()) > 100 {
		t.Fatalf("the edge is asked for %d of %d idle clusters", len(now.GetClusters()), len(names))
	}
	check(t, openUsage(t, h.dialFrom("127.0.0.9", h.certificate(usEdge))).Send(uses("envoy-0", names[idle])))
	check(t, openUsage(t, connection).Send(uses("envoy-1", names[idle])))
	check(t, openUsage(t, connection).Send(uses("envoy-0", "unknown")))
	if r := latest(all); r != nil {
		t.Errorf("somebody else has the edge asked for %d clusters", len(r.Clusters))
	}
	check(t, openUsage(t, connection).Send(uses("envoy-0", names[idle])))
	if r := latest(all); !slices.Contains(r.GetClusters(), names[idle]) || r.LoadReportingInterval.AsDuration() >= interval {
		t.Errorf("the edge is asked for %d clusters each %s", len(r.GetClusters()), r.GetLoadReportingInterval().AsDuration())
	}
}

// A connection that is for usage alone ends while another replica gets the load reports of its edge: the next one may lead
// there. One that is here with configuration stays, and so does one of an edge that reports here.
func TestUsageOfAnEdgeThatReportsElsewhere(t *testing.T) {
	h := newHub(t, server.Config{})
	h.SetStrayTime(time.Second)
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	use := func(connection *grpc.ClientConn, node string) <-chan error {
		stream, ended := openUsage(t, connection), make(chan error, 1)
		go func() { ended <- stream.RecvMsg(&accesslog.StreamAccessLogsResponse{}) }()
		go func() {
			for stream.Send(uses(node, "a")) == nil {
				time.Sleep(50 * time.Millisecond)
			}
		}()
		return ended
	}
	here := h.dial(h.certificate(usEdge))
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	load, err := loadstats.NewLoadReportingServiceClient(here).StreamLoadStats(ctx)
	check(t, err)
	check(t, load.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "envoy-0"}}))
	stays := []<-chan error{use(here, "envoy-0"), use(h.dial(h.certificate(usEdge)), "envoy-0")}
	configured := h.dial(h.certificate(usEdge))
	e := open(t, configured, "envoy-1")
	e.asks(resourcev3.ClusterType, nil)
	e.takes("Cluster a@1")
	stays = append(stays, use(configured, "envoy-1"))
	strays := use(h.dial(h.certificate(usEdge)), "envoy-1")
	select {
	case err := <-strays:
		if status.Code(err) != codes.Unavailable {
			t.Errorf("the usage of an edge that reports elsewhere ended with %v", err)
		}
	case <-time.After(timeout):
		t.Error("the usage of an edge that reports elsewhere goes on")
	}
	time.Sleep(time.Second)
	for i, ended := range stays {
		if len(ended) > 0 {
			t.Errorf("usage %d of an edge that is here ended with %v", i, <-ended)
		}
	}
}

// Streams of usage are bounded, and take no place from those of configuration.
func TestUsageTakesNoPlace(t *testing.T) {
	h := newHub(t, server.Config{MaxEdges: 1})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	ended := make(chan error, 100)
	for range 6 {
		connection := h.dial(h.certificate(usEdge))
		for range 8 {
			stream := openUsage(t, connection)
			check(t, stream.Send(uses("envoy-0", "a")))
			go func() {
				ended <- stream.RecvMsg(&accesslog.StreamAccessLogsResponse{})
			}()
		}
	}
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, nil)
	e.takes("Cluster a@1")
	for range 48 - 16 {
		if err := <-ended; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a stream ended with %v", err)
		}
	}
}
