// Package apply writes objects with server-side apply, the one way in which
// Crossway's shells write objects of their own. It owns the form of the
// request and nothing else: what to write, and whether a write is needed, is
// the caller's. Beside that it has what each of them needs to look first and to
// take back, and to write what matters first: ClientOf, Found, Remove and Rush.
//
// Objects are the API's own typed structs, so that a client which waits for
// its own writes (EnableReadYourWritesConsistency) sees them.
//
// Example:
//
//	err := apply.Object(ctx, hub, v1alpha1.AgentFieldManager, memberExport)
//	// memberExport now has the UID and the version that the API server gave it
package apply
