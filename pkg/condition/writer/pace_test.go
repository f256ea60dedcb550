package writer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// onePool is an API server that has one EdgePool and counts its status writes.
type onePool struct {
	client.Client
	status v1alpha1.EdgePoolStatus
	writes int
}

func (p *onePool) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	o.(*v1alpha1.EdgePool).Status = p.status
	return nil
}

func (p *onePool) Status() client.SubResourceWriter { return statusOfPool{pool: p} }

type statusOfPool struct {
	client.SubResourceWriter
	pool *onePool
}

func (s statusOfPool) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	s.pool.status = o.(*v1alpha1.EdgePool).Status
	s.pool.writes++
	return nil
}

// Hundreds of edges that connect within a second cost a few writes of their EdgePool's status, and the last number is
// the one that stays. The first is written at once.
func TestEdgesThatConnectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &onePool{}
		w := New(Options{Client: api})
		source := w.Source("edgepools", condition.EdgePoolReadyType)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Start(ctx) }()
		synctest.Wait()
		for edges := range int32(200) {
			source.Report([]condition.Report{{Ref: condition.Ref{Kind: condition.EdgePool, Name: fleet.ObjectName{Name: "us"}},
				Pool: &condition.PoolReport{Edges: edges + 1}}})
			synctest.Wait()
			if edges == 0 && api.status.Edges != 1 {
				t.Error("the first edge is not written at once")
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if api.writes > 7 || api.status.Edges != 200 {
			t.Errorf("%d writes, and %d edges in the end", api.writes, api.status.Edges)
		}
		cancel()
		synctest.Wait()
	})
}
