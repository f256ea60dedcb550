package testkit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Timeout is how long Eventually waits: long enough for a busy machine.
const Timeout = time.Minute

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually asks until the answer is yes. It fails the test after Timeout.
func Eventually(t testing.TB, what string, ask func() bool) {
	t.Helper()
	EventuallySeen(t, what, func() (bool, any) { return ask(), nil })
}

// EventuallySeen is Eventually for a condition that also returns what it saw.
// A test that fails prints what was seen last. The condition is asked every
// millisecond at first, then less and less often, down to five times a second.
func EventuallySeen(t testing.TB, what string, ask func() (ok bool, seen any)) {
	t.Helper()
	for began := time.Now(); ; {
		ok, seen := ask()
		if ok {
			return
		}
		waited := time.Since(began)
		if waited > Timeout {
			if seen != nil {
				what += fmt.Sprintf("\nlast seen: %v", seen)
			}
			t.Fatalf("waited %s for %s", Timeout, what)
		}
		time.Sleep(min(max(waited/10, time.Millisecond), 200*time.Millisecond))
	}
}

// Run runs start until the test ends and waits for its return. An error that
// it returns fails the test.
func Run(t testing.TB, start func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// T is a test with the helpers as methods, for fixtures to embed.
type T struct{ testing.TB }

// Must ends the test if err is not nil.
func (t T) Must(err error) {
	t.Helper()
	Must(t.TB, err)
}

// Eventually asks until the answer is yes.
func (t T) Eventually(what string, ask func() bool) {
	t.Helper()
	Eventually(t.TB, what, ask)
}

// Conditions are the conditions of an object as sorted texts, "Type=Status Reason".
func Conditions(conditions []metav1.Condition) []string {
	var texts []string
	for _, c := range conditions {
		texts = append(texts, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	slices.Sort(texts)
	return texts
}

// RoundTripper is a function that answers HTTP requests, to put between a
// client and an API server.
type RoundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f RoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
