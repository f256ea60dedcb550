// Package gossipkit is a fleet of gossip's nodes in one process, over real TLS on
// loopback: a certificate authority, replicas of the hub and agents that start, stop and
// are killed, and a network that can be split. Tests and the bench use it.
//
// Example:
//
//	fleet := gossipkit.New(t.Context(), logr.Discard())
//	hub := fleet.Start(membership.Replica("h1"), nil)
//	a := fleet.Start(membership.Member("a"), nil)
//	a.Kill()
package gossipkit
