package testkit

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"context"
)

// failing is a test that may fail without failing the one that runs it.
type failing struct {
	testing.TB
	failed atomic.Bool
}

func (f *failing) Helper()               {}
func (f *failing) Error(...any)          { f.failed.Store(true) }
func (f *failing) Fatal(...any)          { f.failed.Store(true); runtime.Goexit() }
func (f *failing) Fatalf(string, ...any) { f.Fatal() }

func fails(run func(t testing.TB)) bool {
	f := &failing{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(f)
	}()
	<-done
	return f.failed.Load()
}

func TestMust(t *testing.T) {
	if !fails(func(t testing.TB) { Must(t, errors.New("cause")) }) {
		t.Error("an error does not end the test")
	}
	if fails(func(t testing.TB) { Must(t, nil) }) {
		t.Error("no error ends the test")
	}
}

func TestEventually(t *testing.T) {
	asked := 0
	Eventually(t, "the third answer", func() bool { asked++; return asked == 3 })
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
	if !fails(func(t testing.TB) {
		Eventually(t, "an end", func() bool { t.Fatal("the condition ends the test"); return true })
	}) {
		t.Error("a condition cannot end the test")
	}
}

func TestRunEndsWithTheTest(t *testing.T) {
	var ended atomic.Bool
	t.Run("inner", func(t *testing.T) {
		Run(t, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Millisecond)
			ended.Store(true)
			return nil
		})
	})
	if !ended.Load() {
		t.Error("the test ended before what it ran")
	}
}
