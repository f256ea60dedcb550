// Package membership measures who is alive by gossip: how soon a dead agent is lost,
// what gossip costs at rest, how soon a healed split is whole, and whether a busy agent
// is taken for a dead one.
//
// It needs no lab: small fleets are processes of the bench itself, large ones are nodes in
// one process, all over mutual TLS on loopback. It owns the arithmetic of its figures and
// never judges them.
//
// Example:
//
//	figures, err := membership.Measure(ctx, membership.Options{Program: os.Args[0], Sizes: []int{3, 100}}, os.Stdout)
package membership
