package gossipkit

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// Fleet is a set of nodes.
type Fleet struct {
	*Network
	CA  *CA
	ctx context.Context
	log logr.Logger

	mu    sync.Mutex // guards the rest
	nodes map[membership.Name]*Node

	running sync.WaitGroup
}

// Wait waits until all nodes have stopped.
func (f *Fleet) Wait() { f.running.Wait() }

// Node is a node that runs.
type Node struct {
	*gossip.Node
	Name    membership.Name
	Address string
	Source  *Source
	cancel  context.CancelFunc
	ended   chan error
	fleet   *Fleet
}

// New returns a fleet without nodes. They stop when ctx ends.
func New(ctx context.Context, log logr.Logger) (*Fleet, error) {
	ca, err := NewCA()
	return &Fleet{Network: newNetwork(), CA: ca, ctx: ctx, log: log, nodes: map[membership.Name]*Node{}}, err
}

// Address returns an address of loopback that no other node of any fleet has: each has
// an IP of its own, which depends on the process.
func (f *Fleet) Address() string {
	pid, last := os.Getpid(), lastAddress.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+pid%250, pid/250%250, 1+last%250, 18002+last/250)
}

// lastAddress is the number of the last address in this process.
var lastAddress atomic.Int32

// Start starts a node. change may be nil.
func (f *Fleet) Start(name membership.Name, change func(*gossip.Config)) (*Node, error) {
	source, err := f.CA.Source(name.URI().String(), time.Hour)
	if err != nil {
		return nil, err
	}
	address := f.Address()
	config := gossip.Config{Name: name, Fleet: "test", TLS: source, Listen: address, Advertise: address, Log: f.log.WithName(string(name)), Hub: f.hubs, Dial: f.dialFrom(name)}
	if name.IsHub() {
		config.Heard = func(b membership.Beat) { f.share(name, b) }
	}
	if change != nil {
		change(&config)
	}
	node, err := gossip.New(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(f.ctx)
	n := &Node{Node: node, Name: name, Address: cmp.Or(config.Advertise, config.Listen), Source: source, cancel: cancel, ended: make(chan error, 1), fleet: f}
	f.mu.Lock()
	f.nodes[name] = n
	f.mu.Unlock()
	f.at(name, config.Listen)
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		n.ended <- node.Start(ctx)
	}()
	return n, nil
}

// hubs are the addresses of the replicas.
func (f *Fleet) hubs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for name, n := range f.nodes {
		if name.IsHub() {
			all = append(all, n.Address)
		}
	}
	return all
}

// share passes a Beat on to the other replicas, as they do in the hub.
func (f *Fleet) share(from membership.Name, b membership.Beat) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range f.nodes {
		if name.IsHub() && name != from && !f.isCut(from, name) {
			n.Hear(b)
		}
	}
}

// Stop stops the node; it says that it leaves.
func (n *Node) Stop() error {
	n.fleet.forget(n)
	n.cancel()
	return <-n.ended
}

// Kill takes the node from the network without a word, as SIGKILL does.
func (n *Node) Kill() {
	n.fleet.forget(n)
	n.fleet.kill(n.Name)
	n.cancel()
}

func (f *Fleet) forget(n *Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[n.Name] == n {
		delete(f.nodes, n.Name)
	}
}
