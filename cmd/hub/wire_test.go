package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

// afterBuilt starts its work after the first Build and returns its error. A hub that ends before starts nothing.
func TestAfterBuilt(t *testing.T) {
	built, started := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	a := afterBuilt{built, func() error { close(started); return broken }}
	ended := make(chan error)
	go func() { ended <- a.Start(t.Context()) }()
	select {
	case <-started:
		t.Fatal("started too early")
	case <-time.After(20 * time.Millisecond):
	}
	close(built)
	if err := <-ended; !errors.Is(err, broken) {
		t.Error(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	never := afterBuilt{make(chan struct{}), func() error { return broken }}
	if err := never.Start(done); err != nil {
		t.Error(err)
	}
}
