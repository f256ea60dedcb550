// Command hub is the fleet's control plane: it merges what members export, builds Gateways and routes, divides what
// clients send over the clusters, and serves the result to the edges of every region.
//
// wire.go joins the rooms in the order in which data flows through them; nothing else here decides anything about
// traffic.
//
// Every replica reads, builds and serves edges; the leader alone writes. The hub is ready once it serves edges, which
// it does after its first full Build: an edge that reconnects early waits instead of being told of an empty world.
//
//	hub --xds-names=crossway-hub.crossway-system.svc --namespace=crossway-system --region=us --leader-elect
package main
