package program

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// A term begins once what must be done before it has returned, and not at all if the Lease
// was lost meanwhile.
func TestBeforeATerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := &lease{}, &writers{t: t}
		l := replica(store, "a")
		allow, ended := make(chan struct{}), atomic.Int32{}
		l.before = func(ctx context.Context) {
			select {
			case <-allow:
			case <-ctx.Done():
				ended.Add(1)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { testkit.Must(t, l.Start(ctx)) })
		all.Go(func() { testkit.Must(t, w.of(l).Start(ctx)) })
		time.Sleep(5 * time.Second)
		if l.Leads() || w.running.Load() != 0 {
			t.Error("the term has begun before it may")
		}
		store.freeze(true)
		time.Sleep(2 * leaseDuration)
		store.freeze(false)
		time.Sleep(leaseDuration)
		if ended.Load() != 1 || l.Leads() {
			t.Errorf("after the Lease was lost: Before ended %d times, leads: %v", ended.Load(), l.Leads())
		}
		close(allow)
		time.Sleep(time.Second)
		if !l.Leads() || w.running.Load() != 1 {
			t.Errorf("leads: %v, %d writers", l.Leads(), w.running.Load())
		}
		end()
		all.Wait()
	})
}
