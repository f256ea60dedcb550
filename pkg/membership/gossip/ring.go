package gossip

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"crossway.dev/crossway/pkg/membership"
)

// Times of the ring.
const (
	// rejoinTime is how often a node joins those of the roster that its ring does not
	// have, rejoinMost of them. memberlist never heals a split: it forgets the dead.
	rejoinTime, rejoinMost = 20 * time.Second, 3
	// settleTime is how long a node waits with that after the roster changed: a newcomer is
	// taken in by those who have heard of it, too.
	settleTime = 2 * time.Second
	leaveTime  = time.Second
	// deadTime is how long the ring remembers a dead node. Who is alive after all is joined
	// again, so it need not be long.
	deadTime = 10 * time.Second
)

// ringConfig is memberlist's for one region, with these differences.
func (n *Node) ringConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.Transport = string(n.config.Name), n.config.Fleet, n.packets
	c.RequireNodeNames = true // the transport checks them
	c.EnableCompression = false
	// A first packet waits for a handshake with a node that may be in another region.
	c.ProbeTimeout = 700 * time.Millisecond
	// Packets cost a TLS record each here.
	c.GossipInterval = 500 * time.Millisecond
	c.TCPTimeout = 3 * time.Second
	// An agent that starts again has another address: its name may move to it at once
	// when the old address is found dead.
	c.DeadNodeReclaimTime = time.Nanosecond
	c.GossipToTheDeadTime = deadTime
	c.Alive, c.Events = (*ringDelegate)(n), (*ringDelegate)(n)
	c.Logger = log.New(n.lines, "", 0)
	if a, err := netip.ParseAddrPort(n.config.Advertise); err == nil {
		c.BindAddr, c.BindPort, c.AdvertiseAddr, c.AdvertisePort = a.Addr().String(), int(a.Port()), a.Addr().String(), int(a.Port())
	}
	return c
}

// ringDelegate is what memberlist calls, with a lock held: it must not block, and must
// not call memberlist.
type ringDelegate Node

// NotifyAlive implements memberlist.AliveDelegate: the ring takes in whom the hub says
// there is, where the hub says it is.
func (d *ringDelegate) NotifyAlive(peer *memberlist.Node) error {
	n := (*Node)(d)
	p := Peer{membership.Name(peer.Name), net.JoinHostPort(peer.Addr.String(), strconv.Itoa(int(peer.Port)))}
	if p == (Peer{n.config.Name, n.config.Advertise}) || n.isInRoster(p) {
		return nil
	}
	n.metrics.refused.Add("not in the roster")
	return fmt.Errorf("%.80q at %s is not in the roster", p.Name, p.Address)
}

// NotifyLeave implements memberlist.EventDelegate: somebody says that a node is dead.
// Whether it is, this node finds out itself.
func (d *ringDelegate) NotifyLeave(peer *memberlist.Node) {
	(*Node)(d).hint(membership.Name(peer.Name))
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *ringDelegate) NotifyJoin(*memberlist.Node) {}

// NotifyUpdate implements memberlist.EventDelegate.
func (d *ringDelegate) NotifyUpdate(*memberlist.Node) {}

// keepRing joins nodes of the roster that the ring lacks, until ctx ends.
func (n *Node) keepRing(ctx context.Context) {
	var version uint64
	var joined time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settleTime + rand.N(settleTime/2)):
		}
		peers, now := n.missing()
		if len(peers) == 0 || (now == version && time.Since(joined) < rejoinTime) {
			continue
		}
		version, joined = now, time.Now()
		rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		for _, p := range peers[:min(len(peers), rejoinMost)] {
			if _, err := n.ring.Load().Join([]string{string(p.Name) + "/" + p.Address}); err != nil {
				n.config.Log.V(2).Info("could not join", "node", p.Name, "error", err.Error())
			}
		}
	}
}

// missing are the nodes of the roster that the ring does not have, and the roster's
// version.
func (n *Node) missing() ([]Peer, uint64) {
	has := map[membership.Name]bool{}
	for _, m := range n.ring.Load().Members() {
		has[membership.Name(m.Name)] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var peers []Peer
	for name, address := range n.roster {
		if !has[name] && name != n.config.Name {
			peers = append(peers, Peer{name, address})
		}
	}
	return peers, n.version
}
