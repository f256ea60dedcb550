package server

import (
	"time"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

const (
	// runtimeName is under which edges ask for their runtime, in charts/edge.
	runtimeName = "hub"
	// intervalKey is the runtime's key for how often outlier detection looks at all
	// endpoints of an edge, used or not: with 0.2 us of Envoy's main thread for each. It
	// goes before the interval that a cluster has (lbsync/envoy, ejectionInterval).
	intervalKey = "outlier_detection.interval_ms"
	// The interval is minInterval where load assignments have intervalBudget bytes in
	// all, some 10,000 endpoints, which takes 0.4 % of a core. It doubles as they do.
	minInterval    = 500 * time.Millisecond
	maxInterval    = 8 * time.Second
	intervalBudget = 512 << 10
)

// ejectionInterval is the interval of outlier detection for load assignments of a size.
func ejectionInterval(size int) time.Duration {
	interval := minInterval
	for budget := intervalBudget; budget < size && interval < maxInterval; budget *= 2 {
		interval *= 2
	}
	return interval
}

// setInterval gives the edges of a pool the interval of outlier detection. mu is held.
func (p *pool) setInterval(interval time.Duration) {
	if p.interval == interval {
		return
	}
	p.interval = interval
	milliseconds := structpb.NewNumberValue(float64(interval.Milliseconds()))
	// Marshalling a name and a number cannot fail.
	body, _ := anypb.New(&runtimev3.Runtime{Name: runtimeName, Layer: &structpb.Struct{Fields: map[string]*structpb.Value{intervalKey: milliseconds}}})
	p.state.SetRuntime(delta.Resource{Name: runtimeName, Version: interval.String(), Body: body})
	for _, s := range p.streams {
		s.changed.Set()
	}
}

// clusterSizes is how many bytes the load assignment of each cluster has, and the
// version of that. The interval of outlier detection follows their sum.
func (p *pool) clusterSizes() (sizes map[string]int, changes uint64) {
	p.lock()
	defer p.unlock()
	sizes, changes = p.state.ClusterSizes()
	if p.measured != changes {
		p.measured = changes
		total := 0
		for _, size := range sizes {
			total += size
		}
		p.setInterval(ejectionInterval(total))
	}
	return sizes, changes
}
