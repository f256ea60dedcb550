package gossip

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/membership"
)

const (
	tickTime = 250 * time.Millisecond
	// pauseTime: a loop that did not run for that long listened to nobody.
	pauseTime = 2 * time.Second
	// keepTime is how long a node that is silent is kept.
	keepTime = time.Hour
	// reauthorizeTime is between two looks at who of those that are connected may be.
	reauthorizeTime = 2 * time.Second
)

// Start runs the node until ctx ends. Then it says that it leaves.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	n.started = time.Now()
	n.ticked, n.awake = n.started, n.started
	n.mu.Unlock()
	var socket net.Listener
	if n.config.Listen != "" {
		var err error
		if socket, err = listener.Listen(ctx, n.config.Listen); err != nil {
			return err
		}
	}
	if n.config.Advertise != "" {
		ring, err := memberlist.Create(n.ringConfig())
		if err != nil {
			_ = socket.Close()
			return fmt.Errorf("create the ring: %w", err)
		}
		n.ring.Store(ring)
		n.run(func() { n.keepRing(ctx) })
	}
	if socket != nil { // served last: what failed before that leaves no connection
		n.run(func() { n.serve(ctx, socket) })
	}
	if n.config.Authorize != nil {
		n.run(func() { n.reauthorize(ctx) })
	}
	if n.config.Name.IsHub() {
		n.run(func() { n.beatHere(ctx) })
	} else {
		n.run(func() { n.speak(ctx) })
	}
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			n.tick(ctx, time.Now())
		}
	}
	return n.stop(socket)
}

// reauthorize cuts, until ctx ends, the connections of those that are not let in any more. On
// a replica of the hub their nodes leave the roster, and so the others turn them away, too.
func (n *Node) reauthorize(ctx context.Context) {
	ticker := time.NewTicker(reauthorizeTime)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		barred := map[membership.Name]bool{}
		for _, name := range n.peers.cut() {
			barred[name] = true
		}
		n.mu.Lock()
		n.barred = barred
		n.mu.Unlock()
	}
}

func (n *Node) run(do func()) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		do()
	}()
}

// stop leaves the ring and closes all connections.
func (n *Node) stop(socket net.Listener) (err error) {
	if ring := n.ring.Load(); ring != nil {
		if left := ring.Leave(leaveTime); left != nil {
			n.config.Log.V(1).Info("nobody took the word that this node leaves", "error", left.Error())
		}
		err = ring.Shutdown()
		n.lines.close()
	}
	if socket != nil {
		_ = socket.Close() // it may be closed already
	}
	if n.config.Name.IsHub() {
		n.peers.close()
	} else {
		n.peers.closeBut(forBeats) // on which the last Beat leaves
	}
	done := make(chan struct{})
	go func() { n.packets.writers.Wait(); n.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(leaveTime):
	}
	n.peers.close()
	<-done
	return err
}

// serve takes connections until the socket is closed.
func (n *Node) serve(ctx context.Context, socket net.Listener) {
	for {
		raw, err := socket.Accept()
		if err != nil {
			return
		}
		n.run(func() {
			c, err := n.peers.accept(ctx, raw)
			if err != nil {
				n.metrics.refused.Add("handshake")
				n.config.Log.V(1).Info("refused a connection", "from", raw.RemoteAddr().String(), "error", err.Error())
				return
			}
			if established, ok := raw.(*listener.Conn); ok {
				established.Established()
			}
			n.take(c)
		})
	}
}

// take serves a connection that another node dialled.
func (n *Node) take(c *connection) {
	switch {
	case c.purpose == forBeats && n.config.Name.IsHub():
		n.hear(c)
		_ = c.Close()
	case (c.purpose == forPackets || c.purpose == forStream) && n.config.Advertise != "":
		n.packets.take(c)
	default: // forTry: its hello was all
		_ = c.Close()
	}
}

// beatHere makes the Beats of a replica of the hub, which it hears itself.
func (n *Node) beatHere(ctx context.Context) {
	beat := time.NewTicker(membership.Interval)
	defer beat.Stop()
	for {
		b := n.beat(ctx.Err() != nil)
		n.mu.Lock()
		n.table.Hear(membership.Sighting{Beat: b, At: time.Now()})
		n.mu.Unlock()
		if n.config.Heard != nil {
			n.config.Heard(b)
		}
		if b.Leaving {
			return
		}
		select {
		case <-ctx.Done():
		case <-beat.C:
		case <-n.kick:
		}
	}
}

// tick judges all nodes and starts the tries that are due.
func (n *Node) tick(ctx context.Context, now time.Time) {
	var others []Peer
	if n.config.Peers != nil {
		others = n.config.Peers() // which may wait for who calls Hear
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.ticked) > pauseTime {
		n.awake = now
	}
	n.ticked = now
	if n.config.Name.IsHub() {
		n.table.Forget(now.Add(-keepTime))
		n.judge(now)
		n.enroll(others, now)
		n.question(now)
	}
	n.explore(now)
	n.startTries(ctx, now)
	maps.DeleteFunc(n.tries, func(name membership.Name, t *try) bool { return !t.running && n.addressOf(name) == "" })
	n.peers.forget(func(name membership.Name) bool { return n.addressOf(name) != "" })
}

// judge makes the verdicts. n.mu is held.
func (n *Node) judge(now time.Time) {
	view := membership.View{Now: now, Awake: n.awake}
	verdicts := n.table.Verdicts(view)
	isNew := len(verdicts) != len(n.verdicts)
	for name, v := range verdicts {
		old := n.verdicts[name]
		if v.State == membership.Unknown && old.State != "" { // it has just woken up
			v = old
			verdicts[name] = old
		}
		isNew = isNew || v.State != old.State || !slices.Equal(v.Reached, old.Reached) || !slices.Equal(v.Unreached, old.Unreached)
	}
	n.verdicts = verdicts
	if isNew {
		poke(n.changed)
	}
}

// enroll makes the roster: replicas of the hub, others from outside of gossip, and the agents that this replica has
// reached where they say that they are. n.mu is held.
func (n *Node) enroll(others []Peer, now time.Time) {
	roster := map[membership.Name]string{}
	for _, p := range others {
		if address, err := membership.ParseAddress(p.Address); err == nil {
			roster[p.Name] = address
		}
	}
	for name, s := range n.table {
		address := s.Beat.Address
		switch {
		case address == "" || s.Beat.Leaving || n.barred[name]:
		case name.IsHub() || n.tryOf(name).reached == address:
			roster[name] = address
		default:
			n.want(name, now)
		}
	}
	if !maps.Equal(roster, n.roster) {
		n.roster = roster
		n.version++
	}
}

// question finds out whom to ask about which nodes. n.mu is held.
func (n *Node) question(now time.Time) {
	ask := n.table.Ask(membership.View{Now: now, Awake: n.awake})
	for name, about := range ask {
		if wake := n.wake[name]; wake != nil && !slices.Equal(about, n.ask[name]) {
			poke(wake)
		}
		for _, doubted := range about {
			n.want(doubted, now)
		}
	}
	n.ask = ask
}
