// Package apply writes objects with server-side apply, the only way in which
// Crossway's controllers write objects of their own: Object, Status, Remove.
// Beside that it has what a controller needs to compare first (ClientOf, Found,
// SameConditions), and BurstGate, which lets objects go before statuses.
//
// It owns the form of the request and nothing else: the caller decides what to
// write, and whether a write is needed.
//
// Objects are the API's own typed structs, so that a client which waits for
// its own writes (EnableReadYourWritesConsistency) knows which cache to wait
// for. A write through client.Apply with ApplyConfigurationFromUnstructured
// would wait for a cache of unstructured objects: typed reads would not see the
// write, and a second informer of each kind would be started.
//
// Example:
//
//	err := apply.Object(ctx, hub, v1alpha1.AgentFieldManager, memberExport)
//	// memberExport now has the UID and the resourceVersion that the API server gave it
package apply
