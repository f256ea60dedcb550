package endpoints

import (
	"fmt"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
)

// What is remembered of an edge that invents names of assignments is bounded.
func TestInventedAssignmentsAreForgotten(t *testing.T) {
	link := linktest.NewNetwork().Link("hub-a")
	f := newReplica(t, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), Config{Load: link.Topic("load"), Shares: link.Topic("shares"), PeersHeard: link.Settled(),
		Hub: Hub{Replica: "hub-a"}})
	edge := Edge{Pool: "us", Region: "us", Node: "x", Source: "192.0.2.1"}
	f.Connected(edge)
	for i := range 100 {
		var loads []Load
		for n := range 1000 {
			loads = append(loads, Load{Assignment: fmt.Sprintf("invented-%060d", i*1000+n), Interval: time.Second})
		}
		f.ObserveLoad(edge, loads)
		f.run()
	}
	bytes := 0
	for name := range f.peers.edges.edges[edge.Key()].idle {
		bytes += len(name)
	}
	if bytes > 2<<20 {
		t.Errorf("%d bytes of names are remembered", bytes)
	}
}
