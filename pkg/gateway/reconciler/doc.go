// Package reconciler runs gateway.Build. It reads a snapshot from the caches,
// builds, has lbsync/rollout work out what each EdgePool gets, hands that over,
// and gives the reports to condition/writer. It never decides what a
// configuration or an edge's answer means, and never sees an endpoint.
//
// One loop on one goroutine does the work, on every replica. Events only say
// which kind to list again, or which route to read again. The first change is
// handled at once; bursts are batched (batch.Pace). Objects and lists from the
// cache are never changed, so a slice that is the same as before has the same
// contents, from the cache to the snapshots.
//
// Only the leader writes statuses, through condition/writer, and Records of what edges
// refuse. They are about the edges of all replicas: Replicas tells the others what the edges
// of this one answered.
//
// Example:
//
//	r := reconciler.New(reconciler.Options{Cache: manager.GetCache(), Publisher: edges, Assigner: endpoints, Reporter: source, PoolReporter: pools})
//	_ = manager.Add(r)
//	observer.Nacked = func(e server.Edge, n server.Nack) { r.Nacked(e.Identity.Pool, n.TypeURL) }
package reconciler
