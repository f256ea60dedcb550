package apply

import (
	"sync"
	"time"
)

const (
	// burstMinWrites writes with gaps shorter than burstMaxGap are a burst.
	// Fewer need no order.
	burstMinWrites = 16
	burstMaxGap    = 150 * time.Millisecond
	// burstMaxDelay is how long a burst that does not end delays statuses.
	burstMaxDelay = 3 * time.Second
)

// BurstGate delays the writes of statuses while many objects are written.
// Traffic waits for an object, and nobody but a reader for its status, which
// costs one more write for each object. The zero value is open. Any goroutine
// may use it.
type BurstGate struct {
	mu          sync.Mutex
	writes      int
	began, last time.Time
}

// CountWrite counts an object that was written.
func (g *BurstGate) CountWrite(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.last) >= burstMaxGap {
		g.writes, g.began = 0, now
	}
	g.writes, g.last = g.writes+1, now
}

// StatusDelay is how long to wait before asking again; 0: a status may be
// written now.
func (g *BurstGate) StatusDelay(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writes < burstMinWrites || now.Sub(g.last) >= burstMaxGap || now.Sub(g.began) >= burstMaxDelay {
		return 0
	}
	return burstMaxGap
}
