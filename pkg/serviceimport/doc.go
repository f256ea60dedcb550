// Package serviceimport says what the fleet makes of all exports of one
// service: Merge gives the FleetService and, for each export, what it
// disagrees about with the others (KEP-1645); Project gives the ServiceImport
// that a cluster shows for it.
//
// It never reads a cluster, sees no endpoint, and decides nothing about
// traffic. The order of the exports never matters.
//
// Example:
//
//	merged := serviceimport.Merge([]serviceimport.Export{usWest, usEast})
//	// merged.Import: shop/web, http 80/TCP of both clusters
//	// merged.Verdicts["us-west"]: Conflict=True PortConflict
//	//   port "http" is TCP 80 in us-east, which exported first, and TCP 8080 here; make them equal or rename one
package serviceimport
