package gossip

import "crossway.dev/crossway/pkg/membership"

// HasReached is whether this node has reached another one itself, where it is now.
func (n *Node) HasReached(name membership.Name) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tries[name] != nil && n.tries[name].reached == n.addressOf(name)
}
