// Package serviceimport merges all exports of one service (KEP-1645). Merge
// returns the FleetService and, for each export, the conditions that name its
// conflicts with the others. Project returns the ServiceImport that a cluster
// shows for a FleetService.
//
// It never reads a cluster, sees no endpoint, and decides nothing about
// traffic. The order of the exports does not matter.
//
// Example:
//
//	merged := serviceimport.Merge([]serviceimport.Export{usWest, usEast})
//	// merged.Import: shop/web, http 80/TCP of both clusters
//	// merged.Conditions["us-west"]: Conflict=True PortConflict
//	//   port "http" is TCP 80 in us-east, which exported first, and TCP 8080 here; make them equal or rename one
package serviceimport
