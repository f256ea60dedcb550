// Package reconciler runs gateway.Build. It gathers a snapshot from the caches,
// builds, translates the Model for each EdgePool, publishes what changed, and
// hands the verdicts to condition/writer. It never decides what a
// configuration means, and never sees an endpoint.
//
// There is one loop on one goroutine, on every replica. Events only say which
// kind is to be listed again, or which route to be read again; a first change
// goes out at once, storms are batched (see pace). Lists and values are never
// changed, so what is the same memory as before is the same, all the way from a
// cache to what is published. What edges answer comes back as values, which the
// loop takes into the next Input (see ledger and progress).
//
// Only the leader writes: statuses through condition/writer, and the status of
// EdgePools (addresses, edges) through the Keeper.
//
// Example:
//
//	r := reconciler.New(reconciler.Options{Cache: manager.GetCache(), Publisher: edges, Assigner: endpoints, Reporter: source, Keeper: keeper})
//	_ = manager.Add(r)
//	observer.Nacked = func(_ server.Edge, n server.Refusal) { r.Nacked(n.TypeURL, n.Name, n.Version, n.Message) }
package reconciler
