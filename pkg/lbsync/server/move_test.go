package server_test

import (
	"context"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// Of ten edges, the half that is too many is moved, one by one, each a time after it has connected, and moving ends then.
// Edges that come back here are left alone for that time.
func TestEdgesAreMoved(t *testing.T) {
	h := newHub(t, server.Config{})
	network := linktest.NewNetwork()
	link, other := network.Link("hub-a"), network.Link("hub-b")
	spreader := server.NewSpreader(h.Server, link, logr.Discard())
	spreader.SetTimes(20*time.Millisecond, 300*time.Millisecond)
	other.Topic("edge-count").Set("edges", []byte(`{"edges": 0, "later": "fields are ignored"}`))
	link.Start()
	other.Start()
	for _, node := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		h.connect(node).subscribes(resourcev3.ClusterType)
		h.waitFor("connected " + node)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- spreader.Start(ctx) }()
	h.waitForCount("disconnected", 1)
	other.Topic("edge-count").Set("edges", []byte(`{"edges": 5}`))
	// 5 beside at most 9 is not many more: at most one is moved after this, until 6 are left.
	testkit.Eventually(t, "moving to end", func() bool {
		before := h.count("disconnected")
		time.Sleep(500 * time.Millisecond)
		return h.count("disconnected") == before
	})
	stop()
	testkit.Must(t, <-done)
	if n := len(h.Connected()); n < 5 || n > 9 {
		t.Errorf("%d edges are left", n)
	}
}
