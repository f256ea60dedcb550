package gossip

import (
	"fmt"
	"strings"
	"time"

	"crossway.dev/crossway/pkg/membership"
)

// Dump says for people what this node knows of each other one, and by what.
func (n *Node) Dump() string {
	ring := n.RingSize()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	ago := func(t time.Time) string { return now.Sub(t).Round(time.Millisecond).String() + " ago" }
	var out strings.Builder
	fmt.Fprintf(&out, "this node: %s at %q, without a pause since %s; the ring has %d nodes here\n", n.config.Name, n.config.Advertise, ago(n.awake), ring)
	for _, name := range n.table.Nodes() {
		v, t := n.verdicts[name], n.tries[name]
		fmt.Fprintf(&out, "%s: %s, heard %s, connections: %d", name, v.State, ago(n.table[name].At), n.peers.countOf(name))
		if address := n.addressOf(name); address != "" {
			fmt.Fprintf(&out, ", at %s", address)
		}
		if t != nil && t.reached != "" {
			fmt.Fprintf(&out, ", reached from here at %s %s", t.reached, ago(t.at))
		}
		if t != nil && t.failed > 0 {
			fmt.Fprintf(&out, ", not reached from here %d times, the last %s", t.failed, ago(t.failing))
		}
		names(&out, ", reached by", v.Reached)
		names(&out, ", not reached by", v.Unreached)
		if n.barred[name] {
			out.WriteString(", not let in")
		}
		out.WriteString("\n")
	}
	return out.String()
}

func names(out *strings.Builder, what string, all []membership.Name) {
	if len(all) > 0 {
		fmt.Fprintf(out, "%s %v", what, all)
	}
}
