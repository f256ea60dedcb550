package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
	stuck, live := h.connect("stuck"), h.connect("live")
	for _, e := range []*edge{stuck, live} {
		e.asks(server.AssignmentType, nil, all...)
	}
	h.hears("stuck holds ClusterLoadAssignment map[]")
	h.hears("live holds ClusterLoadAssignment map[]")
	begin := time.Now()
	for round := range rounds { // 80 MB in all: far more than the buffers hold
		h.SetAssignments(pool, change(round), nil)
	}
	if took := time.Since(begin); took > patience {
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

// BenchmarkSetAssignments is one changed assignment of 1000, two edges: the call,
// and until the last edge has it.
func BenchmarkSetAssignments(b *testing.B) {
	for _, size := range []int{10, 1000} {
		b.Run(fmt.Sprintf("clusters=%d", size), func(b *testing.B) {
			s, all := benchServer(size)
			body, _ := anypb.New(wrapperspb.String(strings.Repeat("x", 3700)))
			s.SetAssignments(pool, all, nil)
			b.ReportAllocs()
			for i := range b.N {
				s.SetAssignments(pool, []server.Resource{{Name: all[i%size].Name, Version: fmt.Sprint(i), Body: body}}, nil)
			}
		})
	}
}

// BenchmarkSetResources is one changed route of 1000 in a snapshot of 1000
// clusters and 1000 routes.
func BenchmarkSetResources(b *testing.B) {
	s, all := benchServer(1000)
	routes := make([]server.Resource, len(all))
	b.ReportAllocs()
	for i := range b.N {
		copy(routes, all)
		routes[i%len(all)].Version = fmt.Sprint("v", i)
		s.SetResources(pool, server.Snapshot{Generation: uint64(i), Clusters: all, Routes: routes})
	}
}

func benchServer(size int) (*server.Server, []server.Resource) {
	var all []server.Resource
	for i := range size {
		body, _ := anypb.New(wrapperspb.String(strings.Repeat("x", 3700)))
		all = append(all, server.Resource{Name: fmt.Sprintf("shop/a%d", i), Version: "0", Body: body})
	}
	return server.New(server.Config{}), all
}
