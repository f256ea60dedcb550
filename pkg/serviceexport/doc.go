// Package serviceexport describes what one cluster offers of one service.
// Describe turns a ServiceExport, its Service and its EndpointSlices into the
// MemberExport and the slices that the hub should have, or into conditions that
// explain why nothing is offered (KEP-1645).
//
// It never reads a cluster or the hub, and knows nothing of other clusters'
// exports (see serviceimport). Of a slice only addresses, ports, conditions,
// zones and hostnames leave the cluster.
//
// Example:
//
//	offer := serviceexport.Describe(serviceexport.Input{Cluster: "us-west", Export: export, Service: service, Slices: slices})
//	// offer.Spec: shop/web, ClusterSetIP, http 8080/TCP
//	// offer.Conditions: Valid=True
package serviceexport
