// Package hub runs on the hub and makes the fleet's FleetServices: it reads
// the MemberExports of one service in all members' namespaces, lets
// serviceimport.Merge combine those of accepted members, applies the result to
// crossway-fleet, and writes into each MemberExport's status what the fleet
// says of it: Ready, Conflict, EndpointsAdmitted. Two controllers do that, so that
// no import waits behind statuses.
//
// The namespace of an export, never its content, says which cluster it is
// from. It only looks at endpoints to tell which are refused; keeping them
// away from edges is the part of those who hand them on. It never deletes an
// export, and a silent member keeps its part of every import.
//
// Example:
//
//	merger, err := hub.NewMerger(mgr, hubRanges)
//	err = merger.SetupWithManager(mgr)
package hub
