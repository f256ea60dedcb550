package reconciler

import (
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"

	"crossway.dev/crossway/pkg/fleet"
)

// mailbox takes what others tell the loop, at any time and without waiting.
type mailbox struct {
	kick chan struct{} // one place

	mu sync.Mutex // guards all below
	letters
	urgent bool // the loop waits for ACKs
}

type ack struct {
	id      resourceID
	version string
}

// letters is what a mailbox has.
type letters struct {
	stale   []bool                   // kinds to list again, by index in feeds
	routes  sets.Set[fleet.RouteRef] // to read again, one by one
	acks    []ack
	nacks   []refusal
	answers bool // edges came, went or answered
}

func noLetters(kinds int) letters {
	return letters{stale: make([]bool, kinds), routes: sets.New[fleet.RouteRef]()}
}

func newMailbox(kinds int) *mailbox {
	b := &mailbox{kick: make(chan struct{}, 1), letters: noLetters(kinds)}
	for i := range b.stale {
		b.stale[i] = true
	}
	return b
}

// put changes the mailbox and wakes the loop.
func (b *mailbox) put(change func(*mailbox)) {
	b.mu.Lock()
	change(b)
	b.mu.Unlock()
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// take empties the mailbox.
func (b *mailbox) take() letters {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.letters
	b.letters = noLetters(len(l.stale))
	return l
}

// eager says whether the loop waits for ACKs.
func (b *mailbox) eager(urgent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.urgent = urgent
}

// acked notes what an edge took. It wakes the loop only where that waits for
// it, or once there is a lot: mostly an ACK changes nothing.
func (b *mailbox) acked(acks []ack) {
	b.mu.Lock()
	b.acks = append(b.acks, acks...)
	wake := b.urgent || len(b.acks) > 4096
	b.mu.Unlock()
	if wake {
		b.put(func(*mailbox) {})
	}
}

// putBack returns what could not be read now. It does not wake the loop.
func (b *mailbox) putBack(l letters) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, stale := range l.stale {
		b.stale[i] = b.stale[i] || stale
	}
	b.routes = b.routes.Union(l.routes)
	b.answers = b.answers || l.answers
}
