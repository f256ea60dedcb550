package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// Of six edges, one is moved after the other until another replica, which gets them, has one or none fewer. An edge that was
// moved and comes back at once is refused; after a time it is let in.
func TestEdgesAreMoved(t *testing.T) {
	h := newHub(t, server.Config{})
	network := linktest.NewNetwork()
	link, other := network.Link("hub-a"), network.Link("hub-b")
	ready := make(chan struct{})
	spreader := server.NewSpreader(h.Server, link, ready, logr.Discard())
	spreader.SetTimes(200*time.Millisecond, time.Millisecond)
	told := func(n int) {
		other.Topic("edge-count").Set("edges", fmt.Appendf(nil, `{"pools": {%q: %d}, "later": "fields are ignored"}`, pool, n))
	}
	told(0)
	link.Start()
	other.Start()
	edges := map[string]*edge{}
	for _, node := range []string{"0", "1", "2", "3", "4", "5"} {
		edges[node] = h.connect(node)
		edges[node].subscribes(resourcev3.ClusterType)
		h.waitFor("connected " + node)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- spreader.Start(ctx) }()
	if h.count("disconnected") > 0 {
		t.Error("edges are moved before this replica serves")
	}
	close(ready)
	for n := range 3 { // the oldest first, and each goes to the other replica
		h.waitFor(fmt.Sprintf("disconnected %d", n))
		told(n + 1)
	}
	refused(t, h, "0")
	time.Sleep(time.Second)
	stop()
	testkit.Must(t, <-done)
	if n := len(h.Connected()); n < 3 || n > 4 {
		t.Errorf("%d edges are left", n)
	}
	testkit.Eventually(t, "an edge that was moved to be let in again", func() bool {
		_, err := first(t, h, "0")
		return err == nil
	})
}

// first is the first answer that an edge gets, on a new connection.
func first(t *testing.T, h *hub, node string) (*discovery.DeltaDiscoveryResponse, error) {
	t.Helper()
	h.SetResources(pool, server.Snapshot{Generation: 1})
	connection := h.dial(h.certificate(usEdge))
	defer connection.Close()
	e := open(t, connection, node)
	defer e.cancel()
	e.subscribes(resourcev3.ClusterType)
	return e.stream.Recv()
}

func refused(t *testing.T, h *hub, node string) {
	t.Helper()
	if answer, err := first(t, h, node); err == nil {
		t.Errorf("an edge that was moved is let in at once: %v", answer)
	}
}
