package server

import (
	"context"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

// What the hub does with the versions that an edge says to have counts as the pool's
// work, as the request itself does: an edge can name thousands of them each time it
// reconnects.
func TestInitialVersionsCountAsWork(t *testing.T) {
	s := New(Config{})
	const took = 50 * time.Millisecond
	s.Observe(Observer{InitialVersions: func(Edge, string, map[string]string) { time.Sleep(took) }})
	p := s.pool("us")
	open := &session{service: configuration}
	edge := Edge{Node: "envoy-0"}
	if _, err := p.claim(open, edge); err != nil {
		t.Fatal(err)
	}
	st := p.open(open, edge, time.Second)
	assignments, _ := delta.KindOf("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment")
	s.request(open, st, assignments, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"a": "1"}})
	if open.spent < took {
		t.Errorf("%s of work count as %s", took, open.spent)
	}
}

// What the hub does with a load report counts, too, if it is one that no edge sends: all of it is encoded for other
// replicas.
func TestLargeReportsCountAsWork(t *testing.T) {
	const took = 50 * time.Millisecond
	open := &session{service: load, pool: New(Config{}).pool("us")}
	report, err := proto.Marshal(&loadstats.LoadStatsRequest{Node: &core.Node{Id: strings.Repeat("x", smallRequest)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := open.handle(silentStream{}, report, &loadstats.LoadStatsRequest{}, func() error { time.Sleep(took); return nil }); err != nil {
		t.Fatal(err)
	}
	if open.spent < took {
		t.Errorf("%s of work count as %s", took, open.spent)
	}
}

// silentStream is a stream on which nothing happens.
type silentStream struct{ grpc.ServerStream }

func (silentStream) Context() context.Context { return context.Background() }
