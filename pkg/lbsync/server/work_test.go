package server

import (
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

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
