// Package memberapi is what members read over the hub: for each member, the
// ServiceImports and EndpointSlices that belong into it. It makes them from merged
// services, pushed slices and MemberClusters, and keeps the order of their changes.
//
// It never speaks HTTP, and never reads a FleetService: derived objects decide
// nothing. A slice's namespace alone says which member pushed it.
//
// # One Log, any number of readers
//
// What changed last is encoded once for all its readers, and older objects when they
// are read, so that memory does not hold them twice. A Log has each object once, at its
// last change: the latest wins. So a Watch is a position in the Log, whatever its
// reader has not read yet, and a reader that reads nothing costs nothing more.
//
// Initial objects are read by name while the Log goes on changing. What changed
// meanwhile is sent again afterwards, because a Watch then goes on from the version
// at which it began.
//
// # Versions
//
// Versions count up, for all kinds together. Those of another replica, or of an
// earlier run, are no versions of this Log: their readers list again.
//
// Example:
//
//	state := memberapi.New(start, reserved)
//	touched := state.Apply(memberapi.Changes{Slices: changed}, now) // whom to wake
//	watch := memberapi.NewWatch(state.Reader("us-west"), state.Slices)
//	events, more, err := watch.Next(state)
package memberapi
