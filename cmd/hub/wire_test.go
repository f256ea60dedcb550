package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

// What waits for the first Build begins after it, tells its error, and is not begun by a hub that ends before.
func TestAfterwards(t *testing.T) {
	happened, worked := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	a := afterwards{happened, func() error { close(worked); return broken }}
	ended := make(chan error)
	go func() { ended <- a.Start(t.Context()) }()
	select {
	case <-worked:
		t.Fatal("begun too early")
	case <-time.After(20 * time.Millisecond):
	}
	close(happened)
	if err := <-ended; !errors.Is(err, broken) {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	never := afterwards{make(chan struct{}), func() error { return broken }}
	if err := never.Start(over); err != nil {
		t.Error(err)
	}
}
