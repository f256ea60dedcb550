package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// An edge that does not read costs nobody else anything, and once it reads it
// gets the newest of each resource, not their history.
func TestStuckEdge(t *testing.T) {
	const names, rounds = 50, 400
	h := newHub(t, server.Config{})
	change := func(round int) (changed []server.Resource) {
		for i := range names {
			body, _ := anypb.New(wrapperspb.String(strings.Repeat("x", 4096)))
			changed = append(changed, server.Resource{Name: fmt.Sprintf("a%d", i), Version: fmt.Sprint(round), Body: body})
		}
		return changed
	}
	var all []string
	for _, r := range change(0) {
		all = append(all, r.Name)
	}
	h.SetResources(pool, server.Snapshot{Generation: 1, Clusters: change(0)}) // what uses them
	stuck, live := h.connect("stuck"), h.connect("live")
	for _, e := range []*edge{stuck, live} {
		e.asks(resourcev3.EndpointType, nil, all...)
	}
	h.waitFor("stuck has ClusterLoadAssignment map[]")
	h.waitFor("live has ClusterLoadAssignment map[]")
	begin := time.Now()
	for round := range rounds { // 80 MB in all: far more than the buffers hold
		h.UpdateLoadAssignments(pool, change(round), nil)
	}
	if took := time.Since(begin); took > timeout {
		t.Errorf("%d changes took %s with a stuck edge", names*rounds, took)
	}
	for _, e := range []*edge{live, stuck} {
		last := fmt.Sprint(rounds - 1)
		fresh, received := map[string]bool{}, 0
		for len(fresh) < names {
			r := e.receives()
			e.ack(r)
			received++
			if r.Resources[0].Version == last {
				fresh[r.Resources[0].Name] = true
			}
		}
		if received > names*rounds/2 {
			t.Errorf("%s was sent %d of %d changes, though only the last ones matter", e.node, received, names*rounds)
		}
	}
}

// BenchmarkUpdateLoadAssignments is one changed assignment of 10 or 1000 on two edges
// that have them all: what the call costs its caller, and how long it takes from
// the call to the last edge's ACK.
func BenchmarkUpdateLoadAssignments(b *testing.B) {
	for _, size := range []int{10, 1000} {
		all := many(size)
		changed := func(i int) []server.Resource {
			r := all[i%size]
			r.Version = fmt.Sprint("v", i)
			return []server.Resource{r}
		}
		b.Run(fmt.Sprintf("call/clusters=%d", size), func(b *testing.B) {
			h, _ := benchHub(b, all)
			for i := range b.N {
				h.UpdateLoadAssignments(pool, changed(i), nil)
			}
		})
		b.Run(fmt.Sprintf("acked/clusters=%d", size), func(b *testing.B) {
			h, acked := benchHub(b, all)
			for i := range b.N {
				h.UpdateLoadAssignments(pool, changed(i), nil)
				<-acked
				<-acked
			}
		})
	}
}

// BenchmarkSetResources is one changed route in a snapshot of 1000 clusters and
// 1000 routes, to the last of two edges' ACK.
func BenchmarkSetResources(b *testing.B) {
	all := many(1000)
	h, acked := benchHub(b, all)
	routes := many(1000)
	for i := range b.N {
		routes = slices.Clone(routes) // a Snapshot is not changed afterwards
		routes[i%len(all)].Version = fmt.Sprint("v", i)
		h.SetResources(pool, server.Snapshot{Generation: uint64(i + 2), Clusters: all, Routes: routes})
		<-acked
		<-acked
	}
}

// many resources, as large as an assignment of 150 endpoints.
func many(size int) (all []server.Resource) {
	for i := range size {
		body, _ := anypb.New(wrapperspb.String(strings.Repeat("x", 3700)))
		all = append(all, server.Resource{Name: fmt.Sprintf("shop/a%d", i), Version: "0", Body: body})
	}
	return all
}

// benchHub has two edges that hold all resources and ACK what comes; acked has a
// value for each ACK that the server took in.
func benchHub(b *testing.B, all []server.Resource) (*hub, chan struct{}) {
	acked := make(chan struct{}, 1024)
	h := newHub(b, server.Config{})
	h.UpdateLoadAssignments(pool, all, nil)
	h.SetResources(pool, server.Snapshot{Generation: 1, Clusters: all, Routes: all})
	h.onAck = func() {
		select {
		case acked <- struct{}{}:
		default: // nobody counts
		}
	}
	current, names := versions{}, []string{}
	for _, r := range all {
		current[r.Name], names = r.Version, append(names, r.Name)
	}
	for _, node := range []string{"one", "two"} {
		e := h.connect(node)
		e.asks(resourcev3.ClusterType, current)
		e.takes("Cluster")
		e.asks(resourcev3.EndpointType, current, names...)
		e.asks(resourcev3.RouteType, current, names...)
		e.getsNothing()
		go func() {
			for {
				r, err := e.stream.Recv()
				if err != nil {
					return
				}
				_ = e.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
			}
		}()
	}
	b.ReportAllocs()
	b.ResetTimer()
	return h, acked
}
