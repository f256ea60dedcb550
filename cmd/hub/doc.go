// Command hub is the fleet's control plane: it merges what members export, builds Gateways and routes, divides what
// clients send over the clusters, and serves the result to the edges of every region.
//
// wire.go joins the packages in the order in which data flows through them; nothing else here decides anything about
// traffic.
//
// Every replica reads, builds and serves edges; the leader alone writes. The hub is ready once it serves edges, which
// it does after its first full Build: an edge that reconnects early waits, instead of getting an empty configuration.
//
// # Memory
//
// Most of the hub's memory is the fleet's state, which lives long, so it has GOGC=50 from its first Build on: with 1000
// imports, 150,000 endpoints and 1000 routes it stays near 190 MB, and near 220 MB while all of them are exported at
// once. GOGC and GOMEMLIMIT in its environment win; where memory is limited, set GOMEMLIMIT to nine tenths of the limit,
// so that a burst costs CPU rather than the process.
//
//	hub --xds-names=crossway-hub.crossway-system.svc --namespace=crossway-system --region=us --leader-elect
package main
