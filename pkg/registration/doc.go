// Package registration says what a member or an edge may do: which addresses a
// member may announce (Admission), which objects on the hub let its agent in
// (Objects), what its MemberCluster says (Verdicts), and which certificate
// makes an edge that of a pool and a place (EdgeIdentity).
//
// It never reads a cluster and never writes one: registration/hub does.
//
// Example:
//
//	admission := registration.Admissions(members, hubRanges)["us-west"]
//	admission.Refuses(netip.MustParseAddr("169.254.169.254"))
//	// "is a link-local address"
package registration
