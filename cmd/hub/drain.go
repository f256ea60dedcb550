package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
)

// What a replica does when it is asked to stop, while others serve.
const (
	// announceTime is until others know, and until the Service leads nobody here any more:
	// a pod that is deleted is taken out of it at once.
	announceTime = time.Second
	// drainTime is over how long edges and members are sent to other replicas.
	drainTime = 4 * time.Second
)

// drain sends edges and members to other replicas before this one stops.
type drain struct {
	// leave tells other replicas.
	leave func()
	// others says whether another replica serves.
	others func() bool
	// parts end connections, spread over a time.
	parts []func(ctx context.Context, over time.Duration)
	log   logr.Logger

	begun atomic.Bool
}

// run returns when no edge and no member is connected any more. Without another replica
// it returns at once: they have nobody else, and go on with what they have.
func (d *drain) run(ctx context.Context) {
	d.begun.Store(true)
	d.leave()
	if !d.others() {
		return
	}
	d.log.Info("sending edges and members to other replicas before this one stops", "time", (announceTime + drainTime).String())
	select {
	case <-time.After(announceTime):
	case <-ctx.Done():
		return
	}
	done := make(chan struct{})
	for _, part := range d.parts {
		go func() {
			part(ctx, drainTime)
			done <- struct{}{}
		}()
	}
	for range d.parts {
		<-done
	}
}
