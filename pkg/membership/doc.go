// Package membership says which nodes of a fleet live, and on whose word. Nodes are
// replicas of the hub and agents of members.
//
// It owns what a node says of itself (Beat), the table of what was heard (Table), and
// what follows from that (Judge). A node's word counts for itself, and for others only
// as a second opinion: what it found when it tried to reach them. Nobody is lost by one
// word alone. Times are those at which a replica of the hub saw something change, never
// a member's clock.
//
// It never opens a connection, reads a clock or decides about traffic.
//
// Example: nothing came from a for 6 s, and b cannot reach it either.
//
//	table := membership.Table{}
//	table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:a", Epoch: 1, Seq: 7}, At: start})
//	table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:b", Epoch: 1, Seq: 9,
//		Opinions: []membership.Opinion{{Of: "member:a", Age: time.Second}}}, At: start.Add(6 * time.Second)})
//	v := table.Judge("member:a", membership.View{Now: start.Add(6 * time.Second)})
//	// v.State is Lost, v.Heard is start, v.Unreached is [member:b]
package membership
