package program

import (
	"slices"
	"sync"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// connections are open ones.
type connections struct {
	mu   sync.Mutex
	open []*connection
	ends []time.Time
}

type connection struct {
	all   *connections
	stuck bool
}

func (c *connection) Close() error {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.all.ends = append(c.all.ends, time.Now())
	if !c.stuck {
		c.all.open = slices.DeleteFunc(c.all.open, func(o *connection) bool { return o == c })
	}
	return nil
}

func (c *connections) list() []*connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.open)
}

// Each connection is closed once, one that does not go away too, and they are spread over the time.
func TestDrain(t *testing.T) {
	all := &connections{}
	for i := range 10 {
		all.open = append(all.open, &connection{all, i == 3})
	}
	begin := time.Now()
	Drain(t.Context(), time.Second, all.list)
	testkit.Eventually(t, "all to be closed, and nine to be gone", func() bool {
		all.mu.Lock()
		defer all.mu.Unlock()
		return len(all.ends) == 10 && len(all.open) == 1
	})
	if half := all.ends[5].Sub(begin); half < 300*time.Millisecond {
		t.Errorf("six of ten were closed after %s", half)
	}
}

func TestDrainOfNothing(t *testing.T) {
	begin := time.Now()
	Drain(t.Context(), time.Hour, (&connections{}).list)
	if time.Since(begin) > time.Minute {
		t.Error("it waited")
	}
}
