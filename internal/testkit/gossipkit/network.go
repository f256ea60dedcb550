package gossipkit

import (
	"context"
	"net"
	"sync"
	"syscall"

	"crossway.dev/crossway/pkg/membership"
)

// Network is the network between nodes, which can be split. What is cut is silent:
// open connections carry nothing more, and dials wait.
type Network struct {
	// dial opens TCP connections.
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex // guards the rest
	place map[string]membership.Name
	cut   func(a, b membership.Name) bool
	dead  map[membership.Name]bool
	pipes map[*pipe]struct{}
}

// pipe is a TCP connection between two nodes.
type pipe struct {
	net.Conn
	network  *Network
	from, to membership.Name
}

func newNetwork() *Network {
	return &Network{dial: (&net.Dialer{}).DialContext, place: map[string]membership.Name{}, dead: map[membership.Name]bool{}, pipes: map[*pipe]struct{}{}}
}

// Cut cuts the network between nodes; nil heals it.
func (n *Network) Cut(between func(a, b membership.Name) bool) {
	n.mu.Lock()
	n.cut = between
	n.mu.Unlock()
	n.closeCut()
}

// closeCut closes the connections that are cut: what was on its way is lost.
func (n *Network) closeCut() {
	n.mu.Lock()
	var all []*pipe
	for p := range n.pipes {
		if n.isCutLocked(p.from, p.to) {
			all = append(all, p)
		}
	}
	n.mu.Unlock()
	for _, p := range all {
		_ = p.Close()
	}
}

func (n *Network) isCutLocked(a, b membership.Name) bool {
	return n.dead[a] || n.dead[b] || n.cut != nil && n.cut(a, b)
}

func (n *Network) isCut(a, b membership.Name) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.isCutLocked(a, b)
}

func (n *Network) kill(name membership.Name) {
	n.mu.Lock()
	n.dead[name] = true
	n.mu.Unlock()
	n.closeCut()
}

func (n *Network) at(name membership.Name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place[address] = name
	delete(n.dead, name)
}

// dialFrom is how a node dials.
func (n *Network) dialFrom(from membership.Name) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n.mu.Lock()
		to := n.place[address]
		n.mu.Unlock()
		p := &pipe{network: n, from: from, to: to}
		if !n.isCut(from, to) {
			c, err := n.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if p.Conn = c; n.add(p) {
				return p, nil
			}
			_ = c.Close()
		}
		if n.isDead(to) {
			return nil, syscall.ECONNREFUSED
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// add adds a connection; false: the network was cut while it was dialled.
func (n *Network) add(p *pipe) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isCutLocked(p.from, p.to) {
		return false
	}
	n.pipes[p] = struct{}{}
	return true
}

func (n *Network) isDead(name membership.Name) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead[name]
}

// Close implements net.Conn.
func (p *pipe) Close() error {
	p.network.mu.Lock()
	delete(p.network.pipes, p)
	p.network.mu.Unlock()
	return p.Conn.Close()
}
