package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// A server that drains sends its edges away one after the other, and lets no new one in.
func TestDrain(t *testing.T) {
	h := newHub(t, server.Config{})
	const edges = 8
	for i := range edges {
		h.connect(fmt.Sprintf("edge-%d", i)).subscribes(resourcev3.ClusterType)
		h.waitFor(fmt.Sprintf("connected edge-%d", i))
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		h.Drain(t.Context(), 4*time.Second)
	}()
	h.waitForCount("disconnected", 1)
	if n := h.count("disconnected"); n == edges {
		t.Error("all edges were sent away at once")
	}
	<-drained
	h.waitForCount("disconnected", edges)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	late, err := discovery.NewAggregatedDiscoveryServiceClient(h.dial(h.certificate(usEdge))).DeltaAggregatedResources(ctx)
	if err == nil {
		_, err = late.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a new edge: %v", err)
	}
}

func (h *hub) waitForCount(prefix string, n int) {
	h.t.Helper()
	for end := time.Now().Add(timeout); h.count(prefix) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%d of %d events %q", h.count(prefix), n, prefix)
		}
	}
}
