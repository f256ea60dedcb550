// Package registration decides what a member or an edge may do: which addresses
// a member may announce and how many (Admission), which namespaces it may export and
// import (MayExport, MayImport), which objects on the hub give its agent access
// (Objects), the conditions of its MemberCluster (Conditions), which cluster gets a
// credential (PlanJoin) and whose is in force (InForce), which of two clusters works for a
// member (Claimant), and which certificate makes an Envoy an edge of a pool, region and
// zone (EdgeIdentity).
//
// It never reads or writes a cluster: registration/hub does.
//
// Example:
//
//	admission := registration.Admissions(members, hubRanges)["us-west"]
//	admission.Refuses(netip.MustParseAddr("169.254.169.254"))
//	// "is a link-local address"
package registration
