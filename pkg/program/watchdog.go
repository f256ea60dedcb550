package program

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// pingInterval is between two questions to one part of the program.
	pingInterval = 10 * time.Second
	// maxSilence is how long a part may take to answer.
	maxSilence = 30 * time.Second
)

// Watchdog notices a part of the program that is stuck: a loop that no longer
// turns, a lock that is never released. It asks each part for an answer from time
// to time. An idle part answers, and so does one whose API server does not, because
// no part waits for it. It is a manager's Runnable on every replica.
type Watchdog struct {
	// Pings return once the part has answered, or when ctx ends.
	Pings map[string]func(ctx context.Context) error
	// After is closed once the parts run. Nil: they do.
	After <-chan struct{}

	mu    sync.Mutex
	asked map[string]time.Time // since when an answer is outstanding
}

// NeedLeaderElection says that every replica is watched.
func (w *Watchdog) NeedLeaderElection() bool { return false }

// Start asks until ctx ends.
func (w *Watchdog) Start(ctx context.Context) error {
	if w.After != nil {
		select {
		case <-w.After:
		case <-ctx.Done():
			return nil
		}
	}
	var all sync.WaitGroup
	for name := range w.Pings {
		all.Go(func() { w.watch(ctx, name) })
	}
	all.Wait()
	return nil
}

// watch asks one part. It does not wait for an answer when ctx ends: a part that is
// stuck would hold up the end of the program.
func (w *Watchdog) watch(ctx context.Context, name string) {
	for ctx.Err() == nil {
		w.set(name, time.Now())
		answered := make(chan struct{})
		go func() { _ = w.Pings[name](ctx); close(answered) }()
		select {
		case <-answered:
			w.set(name, time.Time{})
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pingInterval):
		case <-ctx.Done():
		}
	}
}

func (w *Watchdog) set(name string, asked time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked == nil {
		w.asked = map[string]time.Time{}
	}
	w.asked[name] = asked
}

// Check is a check of /healthz.
func (w *Watchdog) Check(*http.Request) error {
	for _, name := range slices.Sorted(maps.Keys(w.Pings)) {
		if silent := w.silence(name); silent > maxSilence {
			return fmt.Errorf("%s is stuck: it has not answered for %s", name, silent.Round(time.Second))
		}
	}
	return nil
}

// silence is for how long an answer of a part is outstanding.
func (w *Watchdog) silence(name string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if asked := w.asked[name]; !asked.IsZero() {
		return time.Since(asked)
	}
	return 0
}
