// Package serviceimport merges all exports of one service (KEP-1645). Merge
// returns the FleetService and, for each export, the conditions that name its
// conflicts with the others. History merges what becomes of a service with time.
// Project returns the ServiceImport that a cluster shows for a FleetService.
//
// A value that is in force stays while an export has it. Otherwise the export that the
// hub saw first decides: dates are the members' own words. What is in force, and who
// was first, is recorded twice, in the FleetService and in the status of each
// MemberExport, so that a hub that restarts goes on from either.
//
// It never reads a cluster, and sees no endpoint. The order of the exports does not
// matter.
//
// Example:
//
//	merged := serviceimport.Merge([]serviceimport.Export{usWest, usEast}, nil)
//	// merged.Import: shop/web, http 80/TCP of both clusters
//	// merged.Conditions["us-west"]: Conflict=True PortConflict
//	//   the name of port TCP 80 is "http", as in us-east, and "web" here; requests are not affected; ...
package serviceimport
