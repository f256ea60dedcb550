package batch

import "sync"

// Signal wakes one waiting goroutine. Signals that nobody has received yet
// count as one. Make it with NewSignal.
type Signal chan struct{}

// NewSignal makes a Signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set wakes the receiver. It never blocks.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Inbox collects changes from any number of goroutines for one receiver.
type Inbox[T any] struct {
	wake  Signal
	empty func() T

	mu      sync.Mutex // guards pending
	pending T
}

// NewInbox makes an Inbox; empty makes the value that changes are collected in.
func NewInbox[T any](empty func() T) *Inbox[T] {
	return &Inbox[T]{wake: NewSignal(), empty: empty, pending: empty()}
}

// Wake is signalled after Add. One signal may stand for many changes.
func (i *Inbox[T]) Wake() <-chan struct{} { return i.wake }

// Add changes the pending value and wakes the receiver. It never waits for it.
func (i *Inbox[T]) Add(change func(pending *T)) {
	i.AddIf(func(pending *T) bool {
		change(pending)
		return true
	})
}

// AddIf changes the pending value and wakes the receiver if change returns true.
func (i *Inbox[T]) AddIf(change func(pending *T) (wake bool)) {
	i.mu.Lock()
	wake := change(&i.pending)
	i.mu.Unlock()
	if wake {
		i.wake.Set()
	}
}

// Drain returns what is pending and leaves the Inbox empty.
func (i *Inbox[T]) Drain() T {
	i.mu.Lock()
	defer i.mu.Unlock()
	pending := i.pending
	i.pending = i.empty()
	return pending
}
