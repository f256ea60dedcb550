package gossip

import (
	"context"
	"slices"
	"strings"
	"time"

	"crossway.dev/crossway/pkg/membership"
)

// Times of tries.
const (
	// wantedTime is how long a node is tried after a question or a hint.
	wantedTime = 10 * time.Second
	// tryTime is how long a node may take to show its certificate.
	tryTime = time.Second
	// failures it takes for the opinion that a node cannot be reached.
	failures = 2
	// exploreTime is how often one node is tried that was never reached.
	exploreTime = time.Second
	// maxTries is how many run at once.
	maxTries = 16
)

// try is what this node found when it dialled another one itself.
type try struct {
	wanted  time.Time // until when somebody wants to know
	next    time.Time // not before
	running bool

	reached string // the address at which it was reached; "": never
	at      time.Time
	failed  int // since then
	failing time.Time
}

// want has a node tried for a while. n.mu is held.
func (n *Node) want(name membership.Name, now time.Time) {
	if name != n.config.Name && n.addressOf(name) != "" {
		n.tryOf(name).wanted = now.Add(wantedTime)
	}
}

// addressOf is where a node is tried: where the hub says it is, or on the hub where it
// says itself. n.mu is held.
func (n *Node) addressOf(name membership.Name) string {
	if n.config.Name.IsHub() && n.table[name].Beat.Address != "" {
		return n.table[name].Beat.Address
	}
	return n.roster[name]
}

func (n *Node) tryOf(name membership.Name) *try {
	t := n.tries[name]
	if t == nil {
		t = &try{}
		n.tries[name] = t
	}
	return t
}

// hint says that the ring takes a node for dead. memberlist holds a lock of its own.
func (n *Node) hint(name membership.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.want(name, time.Now())
}

// explore has one node tried that this one has never reached, so that it has a word
// about it later. A connection that the other one dialled is no proof. n.mu is held.
func (n *Node) explore(now time.Time) {
	if now.Sub(n.explored) < exploreTime {
		return
	}
	for name, address := range n.roster { // in random order
		if t := n.tryOf(name); name != n.config.Name && t.reached != address && !now.Before(t.next) {
			n.explored = now
			t.wanted = now
			return
		}
	}
}

// startTries starts the tries that are due. n.mu is held.
func (n *Node) startTries(ctx context.Context, now time.Time) {
	running := 0
	for _, t := range n.tries {
		if t.running {
			running++
		}
	}
	for name, t := range n.tries {
		address := n.addressOf(name)
		if t.running || running >= maxTries || address == "" || now.Before(t.next) || now.After(t.wanted) {
			continue
		}
		t.running = true
		running++
		n.work.Add(1)
		go func() {
			defer n.work.Done()
			limited, cancel := context.WithTimeout(ctx, tryTime)
			defer cancel()
			c, err := n.peers.dial(limited, Peer{name, address}, forTry)
			if err == nil {
				_ = c.Close()
			} else {
				n.config.Log.V(2).Info("could not reach a node", "node", name, "error", err.Error())
			}
			n.tried(Peer{name, address}, err == nil)
			n.mu.Lock()
			defer n.mu.Unlock()
			t.running = false
		}()
	}
}

// tried takes the result of a try over.
func (n *Node) tried(p Peer, reached bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, t := time.Now(), n.tryOf(p.Name)
	before, _ := t.opinion(p.Name, p.Address, now)
	if reached {
		t.reached, t.at, t.failed = p.Address, now, 0
		t.next = now.Add(2 * time.Second)
	} else {
		t.failed++
		t.failing = now
		t.next = now.Add(pause(t.failed))
	}
	if after, ok := t.opinion(p.Name, p.Address, now); ok && (after.Reached != before.Reached || before.Of == "") {
		poke(n.kick)
	}
}

// pause is how long to wait after so many failures.
func pause(failed int) time.Duration {
	switch {
	case failed < failures:
		return 500 * time.Millisecond
	case failed < 10:
		return 2 * time.Second
	}
	return 10 * time.Second
}

// opinion is what the node may say of another one at an address.
func (t *try) opinion(of membership.Name, address string, now time.Time) (membership.Opinion, bool) {
	switch {
	case t.reached == "" || t.reached != address || now.After(t.wanted):
		return membership.Opinion{}, false
	case t.failed == 0:
		return membership.Opinion{Of: of, Reached: true, Age: now.Sub(t.at)}, true
	case t.failed >= failures:
		return membership.Opinion{Of: of, Age: now.Sub(t.failing)}, true
	}
	return membership.Opinion{}, false
}

// opinions are those of all nodes that somebody wants to know about. n.mu is held.
func (n *Node) opinions(now time.Time) []membership.Opinion {
	var all []membership.Opinion
	for name, t := range n.tries {
		if o, ok := t.opinion(name, n.addressOf(name), now); ok && o.Age < membership.Fresh {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b membership.Opinion) int { return strings.Compare(string(a.Of), string(b.Of)) })
	return all[:min(len(all), membership.MaxOpinions)]
}
