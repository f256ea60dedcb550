package gossip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/hashicorp/memberlist"

	"crossway.dev/crossway/pkg/membership"
)

// TLS is what a node proves its name by and what it believes others by. Both are asked
// for at each handshake, so a renewed certificate and a rotated CA need no restart.
type TLS interface {
	Certificate() (*tls.Certificate, error)
	Roots() *x509.CertPool
}

// Peer is a node and where to dial it.
type Peer struct {
	Name    membership.Name `json:"name"`
	Address string          `json:"address"` // ip:port
}

// Config is what a Node needs.
type Config struct {
	// Name is the node's own; its certificate must speak for it.
	Name membership.Name
	// Fleet is the fleet's name. Nodes of another one are turned away.
	Fleet string
	TLS   TLS
	// Listen is the address of the port. Empty: the node only dials.
	Listen string
	// Advertise is where others can dial the node, as "ip:port". Empty: nobody can. The
	// hub believes it once it has reached the node there.
	Advertise string
	// Hub, of an agent, returns where the hub is, as "host:port". They are tried in turn.
	Hub func() []string
	// Peers, of a replica of the hub, returns the others from outside of gossip: memberlist
	// does not heal a split by itself.
	Peers func() []Peer
	// Authorize returns why a certificate's owner is not let in; nil: all are. It is asked
	// at each handshake, and every two seconds about open connections.
	Authorize func(membership.Name, *x509.Certificate) error
	// Heard, of a replica of the hub, gets each Beat that it hears at first hand, its own
	// too. It must not block.
	Heard func(membership.Beat)
	// Dial opens TCP connections; nil: that of package net.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  logr.Logger
}

// Node is one node of the fleet.
type Node struct {
	config  Config
	metrics *metrics
	peers   *peers
	packets *transport
	ring    atomic.Pointer[memberlist.Memberlist]
	lines   *logWriter // of the ring
	changed chan struct{}
	kick    chan struct{} // an own Beat is due at once
	work    sync.WaitGroup

	mu       sync.Mutex // guards the rest
	own      membership.Beat
	table    membership.Table
	verdicts map[membership.Name]membership.Verdict
	ticked   time.Time
	awake    time.Time // since when the loop has run without a pause
	started  time.Time
	// roster is whom the ring takes in, and where they are dialled; version counts its changes.
	roster   map[membership.Name]string
	version  uint64
	barred   map[membership.Name]bool
	tries    map[membership.Name]*try
	explored time.Time
	ask      map[membership.Name][]membership.Name
	wake     map[membership.Name]chan struct{} // of the streams with agents: an answer is due
}

// New returns a Node that Start runs.
func New(config Config) (*Node, error) {
	if err := config.Name.Check(); err != nil {
		return nil, err
	}
	if config.Fleet == "" || len(config.Fleet) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("the name of the fleet has 1 to %d bytes, not %d", memberlist.LabelMaxSize, len(config.Fleet))
	}
	if config.Advertise != "" {
		address, err := membership.ParseAddress(config.Advertise)
		if err != nil {
			return nil, fmt.Errorf("advertise %q: want ip:port: %w", config.Advertise, err)
		}
		config.Advertise = address
		if config.Listen == "" {
			return nil, fmt.Errorf("advertise %q: the node listens nowhere", config.Advertise)
		}
	}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{}).DialContext
	}
	n := &Node{
		config: config, metrics: &metrics{}, lines: newLogWriter(config.Log), changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		table: membership.Table{}, verdicts: map[membership.Name]membership.Verdict{}, roster: map[membership.Name]string{},
		tries: map[membership.Name]*try{}, wake: map[membership.Name]chan struct{}{},
	}
	n.own = membership.Beat{Node: config.Name, Epoch: uint64(time.Now().UnixNano()), Address: config.Advertise}
	n.peers = newPeers(config, n.metrics)
	n.peers.admit = n.admit
	n.packets = newTransport(n)
	return n, nil
}

// admit returns why a node is not let in. An agent knows only whom the hub says there is.
func (n *Node) admit(name membership.Name, leaf *x509.Certificate) error {
	if n.config.Authorize != nil {
		if err := n.config.Authorize(name, leaf); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.config.Name.IsHub() && !name.IsHub() && n.roster[name] == "" {
		return fmt.Errorf("%s is not in the roster", name)
	}
	delete(n.barred, name)
	return nil
}

// isInRoster is whether a node may be talked to at an address.
func (n *Node) isInRoster(p Peer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return p.Address != "" && n.roster[p.Name] == p.Address && !n.barred[p.Name]
}

// dial opens a connection to a node of the roster. That is a sign of its life.
func (n *Node) dial(ctx context.Context, name membership.Name, what purpose) (*connection, error) {
	n.mu.Lock()
	to := Peer{name, n.roster[name]}
	n.mu.Unlock()
	if to.Address == "" {
		return nil, fmt.Errorf("%s is not in the roster", name)
	}
	c, err := n.peers.dial(ctx, to, what)
	if err == nil {
		n.tried(to, true)
	}
	return c, err
}

// Hear takes over a Beat that another replica of the hub heard.
func (n *Node) Hear(b membership.Beat) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.Check() == nil && b.Node != n.config.Name {
		n.table.Hear(membership.Sighting{Beat: b, At: time.Now()})
	}
}

// Verdict is what is known of a node.
func (n *Node) Verdict(name membership.Name) membership.Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.verdicts[name]
	if !ok {
		v.State = membership.Unknown
	}
	return v
}

// Verdicts are what is known of all nodes, on a replica of the hub.
func (n *Node) Verdicts() map[membership.Name]membership.Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.verdicts)
}

// Changed has a value after the state of a node, or who has a word about it, changed.
func (n *Node) Changed() <-chan struct{} { return n.changed }

// RingSize is how many nodes the ring has here, this one too.
func (n *Node) RingSize() int {
	if ring := n.ring.Load(); ring != nil {
		return ring.NumMembers()
	}
	return 0
}
