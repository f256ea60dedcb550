package linktest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"crossway.dev/crossway/pkg/replica"
)

// Network has links by name.
type Network struct {
	mu      sync.Mutex
	links   map[string]*Link
	cut     map[[2]string]bool
	calls   []func() // to observers
	calling bool
}

// NewNetwork returns a Network without links.
func NewNetwork() *Network {
	return &Network{links: map[string]*Link{}, cut: map[[2]string]bool{}}
}

// Link returns a new link that is not started. It takes the place of one of the same
// name that was stopped, as a process that starts again does.
func (n *Network) Link(name string) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &Link{network: n, name: name, own: replica.NewOwn(), observers: replica.Observers{}, others: map[string]*other{}, settled: make(chan struct{})}
}

// Cut cuts two links off from each other. Both are told Silent.
func (n *Network) Cut(a, b string) { n.change(func() { n.cut[pair(a, b)] = true }) }

// Heal joins them again. Both are told what changed, and Heard.
func (n *Network) Heal(a, b string) { n.change(func() { delete(n.cut, pair(a, b)) }) }

// Gone is what comes of a silent link after ten minutes.
func (n *Network) Gone(name string) {
	n.change(func() {
		for _, l := range n.links {
			o := l.others[name]
			if o == nil || o.presence.Heard() {
				continue
			}
			delete(l.others, name)
			l.tell(name, o.mirror.Clear(), replica.NowGone)
		}
	})
}

// CutReading has one link read another no longer, which still reads it.
func (n *Network) CutReading(reader, from string) {
	n.change(func() { n.cut[oneWay(reader, from)] = true })
}

// HealReading ends that.
func (n *Network) HealReading(reader, from string) {
	n.change(func() { delete(n.cut, oneWay(reader, from)) })
}

func oneWay(reader, from string) [2]string { return [2]string{"read by " + reader, from} }

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// change makes a change, sends what follows from it, and calls observers. A call of an
// observer that makes a change returns before what follows is sent.
func (n *Network) change(what func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what()
	for _, l := range n.links {
		for _, other := range n.links {
			if l != other {
				l.follow(other)
			}
		}
	}
	if n.calling {
		return
	}
	n.calling = true
	for len(n.calls) > 0 {
		call := n.calls[0]
		n.calls = n.calls[1:]
		n.mu.Unlock()
		call()
		n.mu.Lock()
	}
	n.calling = false
}

// Link is a replica.Link in a Network.
type Link struct {
	network   *Network
	name      string
	own       *replica.Own
	observers replica.Observers
	others    map[string]*other
	settled   chan struct{}
	stopped   bool
	leaving   bool
}

var _ replica.Link = &Link{}

// other is what a link knows of another one.
type other struct {
	link     *Link
	follower *replica.Follower // nil: not connected
	mirror   *replica.Mirror
	presence replica.Presence
}

// Name of the link.
func (l *Link) Name() string { return l.name }

// Settled is closed by Start.
func (l *Link) Settled() <-chan struct{} { return l.settled }

// Start joins the Network. Links that are there and not cut off are heard at once.
func (l *Link) Start() {
	l.network.change(func() { l.network.links[l.name] = l })
	close(l.settled)
}

// Leave says that the link stops soon.
func (l *Link) Leave() { l.network.change(func() { l.leaving = true }) }

// Stop ends the link, as the end of its process does.
func (l *Link) Stop() {
	l.network.change(func() {
		l.stopped = true
		for _, o := range l.network.links {
			o.follow(l)
		}
		delete(l.network.links, l.name)
	})
}

// follow reads what another link has. The Network is locked.
func (l *Link) follow(from *Link) {
	o := l.others[from.name]
	if o == nil {
		o = &other{mirror: replica.NewMirror()}
		l.others[from.name] = o
	}
	if l.stopped || from.stopped || l.network.cut[pair(l.name, from.name)] || l.network.cut[oneWay(l.name, from.name)] {
		if o.follower != nil {
			o.follower.End()
			o.follower = nil
		}
		l.tell(from.name, nil, o.presence.Refused())
		return
	}
	if o.follower == nil || o.link != from {
		o.link, o.follower = from, from.own.Follow()
		o.mirror.Begin()
	}
	for frame := (replica.Frame{Leaving: from.leaving}); o.follower.Lacks() || frame.Leaving != o.presence.Leaving(); {
		frame.Updates, frame.Whole = o.follower.Next(1 << 20)
		updates, err := o.mirror.Apply(frame, l.observers.Knows)
		if err != nil {
			panic(err) // Own has the same limits
		}
		l.tell(from.name, updates, o.presence.Frame(frame)...)
	}
}

// tell queues calls of the observers. The Network is locked.
func (l *Link) tell(name string, updates []replica.Update, changes ...replica.Change) {
	l.network.calls = append(l.network.calls, func() {
		l.observers.Update(name, updates)
		for _, change := range changes {
			l.observers.Change(name, change)
		}
	})
}

// Replicas implements replica.Link.
func (l *Link) Replicas() []replica.Replica {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	var out []replica.Replica
	for name, o := range l.others {
		out = append(out, replica.Replica{Name: name, Address: "memory", Version: "test", Heard: time.Now(),
			Connected: o.presence.Heard(), Listed: l.network.links[name] != nil, Leaving: o.presence.Leaving()})
	}
	slices.SortFunc(out, func(a, b replica.Replica) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Topic implements replica.Link.
func (l *Link) Topic(name string) replica.Topic { return &topic{l, name} }

type topic struct {
	link *Link
	name string
}

func (t *topic) Set(key string, value []byte) {
	t.link.network.change(func() { _ = t.link.own.Set(t.name, key, value) }) // beyond a limit is deleted
}

func (t *topic) Delete(key string) {
	t.link.network.change(func() { t.link.own.Delete(t.name, key) })
}

func (t *topic) Subscribe(o replica.Observer) {
	t.link.network.mu.Lock()
	defer t.link.network.mu.Unlock()
	t.link.observers[t.name] = append(t.link.observers[t.name], o)
}
