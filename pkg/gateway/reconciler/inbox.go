package reconciler

import (
	"cmp"
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/sets"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// pending is what happened since the last pass.
type pending struct {
	stale    []bool                      // kinds to list again, by index in Reconciler.kinds
	routes   sets.Set[fleet.RouteRef]    // to read again, one by one
	services sets.Set[fleet.ServiceName] // whose exports changed
	progress bool                        // edges came, went or answered
	dumps    []func()
	// crdVersion replaces gateway.Input.CRDVersion; empty: it stays.
	crdVersion string
}

func newPending(kinds int) pending {
	return pending{stale: make([]bool, kinds), routes: sets.New[fleet.RouteRef](), services: sets.New[fleet.ServiceName]()}
}

func (p *pending) staleAll() {
	for i := range p.stale {
		p.stale[i] = true
	}
}

// requeue returns the reads that failed. It does not wake the loop.
func (r *Reconciler) requeue(failed pending) {
	r.inbox.AddIf(func(p *pending) bool {
		for i, stale := range failed.stale {
			p.stale[i] = p.stale[i] || stale
		}
		p.routes = p.routes.Union(failed.routes)
		p.services = p.services.Union(failed.services)
		p.progress = p.progress || failed.progress
		p.crdVersion = cmp.Or(p.crdVersion, failed.crdVersion)
		return false
	})
}

// Nacked counts a NACK of an edge. What it means is in the edge's Progress.
func (r *Reconciler) Nacked(pool, typeURL string) {
	r.metrics.nacks.WithLabelValues(pool, rollout.ResourceID{TypeURL: typeURL}.Type()).Inc()
	r.Progressed()
}

// Progressed takes in that edges connected, disconnected, or have answered a
// snapshot. It does not block.
func (r *Reconciler) Progressed() { r.inbox.Add(func(p *pending) { p.progress = true }) }

// SetCRDVersion sets gateway.Input.CRDVersion, which a program that starts while the
// API server does not answer learns later. It does not block.
func (r *Reconciler) SetCRDVersion(version string) {
	r.inbox.Add(func(p *pending) { p.crdVersion = version })
}

// Ping returns once the loop has begun its next pass, or with an error when ctx
// ends: a loop that is stuck does not answer.
func (r *Reconciler) Ping(ctx context.Context) error {
	_, err := r.dump(ctx, func() any { return nil })
	return err
}

// DumpRollout returns the state of the rollout as text for people.
func (r *Reconciler) DumpRollout(ctx context.Context) (any, error) {
	return r.dump(ctx, func() any { return r.rollout.Describe() })
}

// DumpModel returns the last Model.
func (r *Reconciler) DumpModel(ctx context.Context) (any, error) {
	return r.dump(ctx, func() any { return r.result.Model })
}

// dump calls read on the loop's goroutine, which owns what it reads.
func (r *Reconciler) dump(ctx context.Context, read func() any) (any, error) {
	answer := make(chan any, 1)
	r.inbox.Add(func(p *pending) { p.dumps = append(p.dumps, func() { answer <- read() }) })
	select {
	case value := <-answer:
		return value, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the loop of the reconciler: %w", context.Cause(ctx))
	}
}
