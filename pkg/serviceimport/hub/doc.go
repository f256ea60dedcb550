// Package hub runs on the hub and makes FleetServices. It reads the MemberExports
// of one service in all members' namespaces, combines those of accepted members
// with serviceimport.Merge, applies the result to crossway-fleet, and writes the
// conditions Ready, Conflict and EndpointsAdmitted of each MemberExport. Two
// controllers do that, so that no FleetService waits behind statuses.
//
// The namespace of an export, never its content, decides which cluster it is
// from. Endpoints are read only to report the refused ones: the readers of
// slices (such as lbsync/endpoints) keep those away from edges. It never deletes
// an export, and a silent member keeps its part of every FleetService.
//
// Example:
//
//	merger, err := hub.NewMerger(mgr, hub.NewMerges(mgr.GetCache()), hubRanges)
//	err = merger.SetupWithManager(mgr, leadership)
package hub
