package reconciler

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// pools is an API server of EdgePools alone, of which "a-bad" and "m-bad"
// cannot be read.
type pools struct {
	client.Client
	reads  []string
	stored map[string]v1alpha1.EdgePoolStatus
}

func (p *pools) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	p.reads = append(p.reads, key.Name)
	if strings.HasSuffix(key.Name, "-bad") {
		return errors.New(key.Name + " cannot be read")
	}
	pool := o.(*v1alpha1.EdgePool)
	pool.Name, pool.Status = key.Name, p.stored[key.Name]
	return nil
}

func (p *pools) Status() client.SubResourceWriter { return poolStatuses{pools: p} }

type poolStatuses struct {
	client.SubResourceWriter
	pools *pools
}

func (p poolStatuses) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	p.pools.stored[o.GetName()] = o.(*v1alpha1.EdgePool).Status
	return nil
}

// A pool that cannot be written holds up no other, and is tried ever less often.
func TestOneBadPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &pools{stored: map[string]v1alpha1.EdgePoolStatus{}}
		w := NewPoolStatusWriter(api, nil, nil)
		w.SetDesired(map[string]poolStatus{"z": {edges: 1}, "a-bad": {}, "m-bad": {}, "b": {edges: 2}})
		err := w.writeAll(t.Context(), w.last)
		if err == nil || err.Error() != "write status of EdgePool a-bad: a-bad cannot be read\nwrite status of EdgePool m-bad: m-bad cannot be read" {
			t.Errorf("got %v, want both faults", err)
		}
		if !slices.Equal(api.reads, []string{"a-bad", "b", "m-bad", "z"}) || api.stored["b"].Edges != 2 || api.stored["z"].Edges != 1 {
			t.Errorf("read %v, stored %v", api.reads, api.stored)
		}
		api.reads = nil
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Start(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if rounds := len(api.reads) / 4; rounds < 10 || rounds > 30 {
			t.Errorf("tried %d times in 10 minutes, want each 30 s in the end", rounds)
		}
		// What others want is not late for that.
		w.SetDesired(map[string]poolStatus{"z": {edges: 7}, "a-bad": {}})
		time.Sleep(time.Second)
		synctest.Wait()
		if api.stored["z"].Edges != 7 {
			t.Error("z waits for a-bad")
		}
		cancel()
	})
}

// A pool whose spec.nearest another one's overrides says whose, and what to do.
func TestNearestIgnored(t *testing.T) {
	pool := func(name string, second int64, region string, nearest ...string) v1alpha1.EdgePool {
		p := v1alpha1.EdgePool{Spec: v1alpha1.EdgePoolSpec{Region: region, Nearest: nearest}}
		p.Name, p.CreationTimestamp.Time = name, time.Unix(second, 0)
		return p
	}
	api := &pools{stored: map[string]v1alpha1.EdgePoolStatus{}}
	r := New(Options{PoolStatus: NewPoolStatusWriter(api, nil, nil)})
	r.input.Pools = []v1alpha1.EdgePool{
		pool("a", 3, "us", "asia"), pool("b", 2, "us", "eu"), pool("c", 1, "us"), pool("d", 4, "us", "eu"), pool("e", 5, "eu", "asia"),
	}
	if err := r.options.PoolStatus.writeAll(t.Context(), r.poolStatuses(map[string][]rollout.EdgeProgress{"a": {{}}})); err != nil {
		t.Fatal(err)
	}
	for name, status := range api.stored {
		message := status.Conditions[0].Message
		if ignored := strings.Contains(message, "spec.nearest"); ignored != (name == "a") {
			t.Errorf("%s says %q", name, message)
		}
	}
	want := `edges are connected to the hub; spec.nearest does not count: that of EdgePool "b" decides for region "us"; write the same here, or leave it out`
	if got := api.stored["a"].Conditions[0].Message; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
