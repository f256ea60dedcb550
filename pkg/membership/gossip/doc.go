// Package gossip is the shell of membership: it carries Beats and the gossip of
// hashicorp/memberlist over mutual TLS 1.3, on one TCP port.
//
// It owns the connections, who may speak under which name, and when a node is tried by
// hand. It never decides who lives (membership.Judge does), and never writes to an API
// server.
//
// There are two ways, told apart by ALPN:
//
//   - crossway-beat: every agent dials the hub and sends a Beat a second; the hub answers
//     with the roster (which nodes there are, where) and with whom to try. It is the only
//     way that an agent needs whom nobody can dial.
//   - crossway-gossip: the ring of memberlist, of the hub's replicas and of the agents that
//     the hub could dial. Each node keeps trying a few others, so that somebody notices,
//     and can be asked, whatever happens to the hub.
//
// What memberlist says of others may be forged by any node: a suspicion, a death, an
// incarnation. So it is a hint: a node that the ring takes for dead is dialled, and only
// what the dialler found under the other's own certificate becomes its opinion. Names and
// addresses come from the hub's roster alone: the ring takes in nobody else
// (memberlist.AliveDelegate), and the transport dials nowhere else.
//
// Example, an agent:
//
//	node, err := gossip.New(gossip.Config{Name: membership.Member("a"), Fleet: "prod", TLS: source,
//		Listen: ":18002", Advertise: "10.1.0.7:18002", Hub: func() []string { return []string{"hub.example.com:18002"} }, Log: log})
//	err = node.Start(ctx)
package gossip
