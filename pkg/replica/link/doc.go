// Package link joins the replicas of a hub: each dials the others, and reads what they
// own. It is the I/O around package replica.
//
// A connection carries one stream of gRPC in one direction: who dials reads. So each pair
// of replicas has two connections, and nobody can write into another's maps. The address
// of a replica is only where to look; that it is a replica, its certificate says
// (registration.ReplicaIdentity), and which one, it says itself. All replicas have the same
// certificate, so who has it may be any of them.
//
//	l := link.New(link.Config{...})
//	load := l.Topic("load")
//	load.Subscribe(replica.Observer{...})
//	go l.Start(ctx)
//	load.Set("edge", value)
package link
