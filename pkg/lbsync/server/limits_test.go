package server_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// ends waits until the edge's stream ends, and checks why.
func (e *edge) ends(code codes.Code, message string) {
	e.t.Helper()
	timer := time.AfterFunc(timeout, e.cancel)
	defer timer.Stop()
	for {
		_, err := e.stream.Recv()
		if err == nil {
			continue
		}
		if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), message) {
			e.t.Errorf("the stream ended with %v, want %s with %q", err, code, message)
		}
		return
	}
}

// An edge that reconnects while the hub still takes its old connection for alive is
// one edge, on its new stream; another zone's edge of the same name is another edge.
func TestNewerStreamOfAnEdge(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	old := running(h, "Cluster a@1")
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, versions{"a": "1"})
	e.takes("Cluster")
	old.ends(codes.Aborted, "newer stream")
	elsewhere := usEdge
	elsewhere.Zone = "us-b"
	other := open(t, h.dial(h.certificate(elsewhere)), "envoy-0")
	other.asks(resourcev3.ClusterType, nil)
	other.takes("Cluster a@1")
	h.waitFor("disconnected envoy-0")
	e.getsNothing()
	if edges := h.Edges(pool); len(edges) != 2 {
		t.Errorf("%d edges are connected, want 2", len(edges))
	}
}

// Whoever has the pool's certificate may use another edge's name: from another
// address that ends neither of its streams, and both are served.
func TestNameOfAnotherEdge(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	honest := running(h, "Cluster a@1")
	load, err := loadstats.NewLoadReportingServiceClient(h.dial(h.certificate(usEdge))).StreamLoadStats(t.Context())
	check(t, err)
	check(t, load.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "envoy-0"}}))
	_, err = load.Recv()
	check(t, err)

	thief := open(t, h.dialFrom("127.0.0.9", h.certificate(usEdge)), "envoy-0")
	thief.asks(resourcev3.ClusterType, nil)
	thief.takes("Cluster a@1")
	check(t, reportsLoadFrom(h.dialFrom("127.0.0.9", h.certificate(usEdge)), "envoy-0"))
	honest.getsNothing()
	thief.getsNothing()
	check(t, load.Send(&loadstats.LoadStatsRequest{ClusterStats: []*endpoint.ClusterStats{{ClusterName: "still-here"}}}))
	h.waitFor(`envoy-0 of us sent {Clusters:[{Cluster:still-here Assignment: Interval:0s Dropped:0 Drops:[] Localities:[]}]}`)
	if edges := h.Edges(pool); len(edges) != 2 {
		t.Errorf("%d edges are connected, want 2", len(edges))
	}
}

// reportsLoadFrom begins load reporting as a node, and ends it.
func reportsLoadFrom(connection *grpc.ClientConn, node string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: node}}) // an error comes with Recv
	_, err = stream.Recv()
	return err
}

// A pool that is removed and made again before anybody asked whether its edges are
// still authorized has none of the old streams: they would never get anything of it.
func TestPoolIsMadeAgain(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Cluster a@1")
	h.RemovePool(pool)
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@2"))
	h.Reauthorize()
	e.ends(codes.Aborted, "was removed")
	again := h.connect("envoy-0")
	again.asks(resourcev3.ClusterType, versions{"a": "1"})
	again.takes("Cluster a@2")
}

// Who reads what edges have done makes no pool.
func TestReadersMakeNoPool(t *testing.T) {
	h := newHub(t, server.Config{})
	if edges := h.Edges("unknown"); len(edges) > 0 {
		t.Errorf("an unknown pool has %d edges", len(edges))
	}
	if text := h.Describe(); text != "" {
		t.Errorf("reading made a pool: %s", text)
	}
}

// A pool has at most so many edges; those that are connected stay.
func TestTooManyEdges(t *testing.T) {
	h := newHub(t, server.Config{MaxEdges: 2})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	var edges []*edge
	for i := range 3 {
		e := h.connect(fmt.Sprint("envoy-", i))
		e.asks(resourcev3.ClusterType, nil)
		if i < 2 {
			e.takes("Cluster a@1")
		}
		edges = append(edges, e)
	}
	edges[2].ends(codes.ResourceExhausted, "has 2 edges already")
	edges[0].cancel()
	h.waitFor("disconnected envoy-0")
	again := h.connect("envoy-2")
	again.asks(resourcev3.ClusterType, nil)
	again.takes("Cluster a@1")
	edges[1].getsNothing()
}

// Streams that do not say who they are, on any number of connections, are bounded too.
func TestTooManyStreams(t *testing.T) {
	h := newHub(t, server.Config{MaxEdges: 1})
	ended := make(chan error, 100)
	for range 10 {
		connection := h.dial(h.certificate(usEdge))
		for range 8 {
			stream := open(t, connection, "").stream
			go func() {
				_, err := stream.Recv()
				ended <- err
			}()
		}
	}
	for range 80 - 34 {
		if err := <-ended; !strings.Contains(err.Error(), "have too many streams") {
			t.Errorf("a stream ended with %v", err)
		}
	}
}

// A name that an edge gives itself is short and printable: it goes to logs and
// conditions.
func TestNodeNames(t *testing.T) {
	h := newHub(t, server.Config{})
	for _, node := range []string{"", strings.Repeat("n", 5_000_000), "a\nb", "a\x1b[2J"} {
		e := h.connect(node)
		e.asks(resourcev3.ClusterType, nil)
		e.ends(codes.InvalidArgument, "node.id")
		stream, err := loadstats.NewLoadReportingServiceClient(h.dial(h.certificate(usEdge))).StreamLoadStats(t.Context())
		check(t, err)
		_ = stream.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: node}})
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("load reports of node %.20q: %v", node, err)
		}
	}
	if n := h.count("connected"); n != 0 {
		t.Errorf("%d edges connected", n)
	}
}

// Only the first request of a type may be large, and none may have more fields than
// any edge needs, however small they are.
func TestLargeRequests(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	e := h.connect("envoy-0")
	held := versions{}
	for i := range 10_000 {
		held[fmt.Sprintf("shop/%0100d", i)] = strings.Repeat("v", 400)
	}
	for _, typeURL := range []string{resourcev3.EndpointType, resourcev3.RouteType, resourcev3.SecretType, resourcev3.ListenerType, resourcev3.ScopedRouteType, resourcev3.ClusterType} {
		e.asks(typeURL, held)
	}
	for e.receives().TypeUrl != resourcev3.ClusterType { // scopes and listeners first are removed
	}
	e.asks(resourcev3.EndpointType, held)
	e.ends(codes.ResourceExhausted, "only the first one of a type")

	many := h.connect("envoy-1")
	names := strings.Split(strings.Repeat("x,", 200_000), ",")
	many.asks(resourcev3.ClusterType, nil, names...)
	many.ends(codes.ResourceExhausted, "more than 150000 fields")
}

// Who holds sockets open without a certificate, from many addresses, keeps no edge
// out, and nobody may hold one for long.
func TestSocketsBeforeAuthentication(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	var idle []net.Conn
	for i := range 2000 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%20))}}
		c, err := d.DialContext(t.Context(), "tcp", h.address)
		check(t, err)
		defer c.Close()
		idle = append(idle, c)
	}
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, nil)
	e.takes("Cluster a@1")
	open := 0
	for _, c := range idle {
		check(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "timeout") {
			open++
		}
	}
	if open > 1024 {
		t.Errorf("%d sockets without a certificate are open, want at most 1024", open)
	}
	if testing.Short() { // the rest takes 5 s
		return
	}
	last := idle[len(idle)-1]
	check(t, last.SetReadDeadline(time.Now().Add(timeout)))
	if _, err := last.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a socket without a handshake is still open after %s", timeout)
	}
	e.getsNothing()
}

// What a hostile edge says is logged, but not as often as it is said.
func TestLogIsLimited(t *testing.T) {
	var lines lineCounter
	h := newHub(t, server.Config{Log: lines.logger()})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	e := running(h, "Cluster a@1")
	for range 1000 {
		e.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.SecretType, ResourceNamesSubscribe: []string{"no"}})
		r := e.gets("Secret -no")
		e.nack(r, string(bytes.Repeat([]byte("no "), 10_000)))
	}
	e.getsNothing()
	if lines.bytes.Load() > 1<<20 || lines.count.Load() == 0 {
		t.Errorf("%d log lines have %d bytes", lines.count.Load(), lines.bytes.Load())
	}
}

// lineCounter counts what is logged.
type lineCounter struct{ count, bytes atomic.Int64 }

func (l *lineCounter) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.count.Add(1)
		l.bytes.Add(int64(len(prefix) + len(args)))
	}, funcr.Options{})
}

// A connection opens only as many streams as an edge needs; others go on.
func TestStreamsOfAConnectionAreLimited(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	connection := h.dial(h.certificate(usEdge))
	begin := time.Now()
	for i := range 20 {
		e := open(t, connection, fmt.Sprint("envoy-", i))
		e.asks(resourcev3.ClusterType, nil)
		e.takes("Cluster a@1")
		e.cancel()
	}
	if took := time.Since(begin); took < 1500*time.Millisecond {
		t.Errorf("20 streams were opened within %s", took)
	}
	other := h.connect("another")
	begin = time.Now()
	other.asks(resourcev3.ClusterType, nil)
	other.takes("Cluster a@1")
	if took := time.Since(begin); took > timeout/2 {
		t.Errorf("another edge waited %s", took)
	}
}
