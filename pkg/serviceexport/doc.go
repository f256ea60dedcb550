// Package serviceexport says what one cluster offers to the fleet of one
// service: Describe turns a ServiceExport, its Service and its EndpointSlices
// into the MemberExport and the slices that the hub shall have, or says in
// conditions why there is nothing to offer (KEP-1645).
//
// It never reads a cluster or the hub, knows nothing of other clusters'
// exports (that is serviceimport's), and lets nothing of a slice out but
// addresses, ports, conditions, zones and hostnames.
//
// Example:
//
//	offer := serviceexport.Describe(serviceexport.Input{Cluster: "us-west", Export: export, Service: service, Slices: slices})
//	// offer.Spec: shop/web, ClusterSetIP, http 8080/TCP
//	// offer.Conditions: Valid=True
package serviceexport
