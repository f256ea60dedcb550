package apply

import (
	"sync"
	"time"
)

const (
	// rushWrites within gaps of less than rushGap are a rush: fewer need no order.
	rushWrites = 16
	rushGap    = 150 * time.Millisecond
	// rushPatience is how long statuses wait for a rush that does not end.
	rushPatience = 3 * time.Second
)

// Rush says whether many objects are being written, so that their statuses,
// which are as many writes again, come after them: traffic waits for an object
// and nobody but a reader for its status. The zero value has seen none; any
// goroutine may use it.
type Rush struct {
	mu          sync.Mutex
	writes      int
	began, last time.Time
}

// Wrote counts an object that was written.
func (r *Rush) Wrote(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) >= rushGap {
		r.writes, r.began = 0, now
	}
	r.writes, r.last = r.writes+1, now
}

// Wait is after which time a status should ask again; 0: it may be written now.
func (r *Rush) Wait(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes < rushWrites || now.Sub(r.last) >= rushGap || now.Sub(r.began) >= rushPatience {
		return 0
	}
	return rushGap
}
