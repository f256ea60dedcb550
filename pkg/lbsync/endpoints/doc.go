// Package endpoints turns EndpointSlices and load reports into load assignments: slices, members, pools and shares ->
// lbsync.Assign -> the edges. It is the fast stream of the hub, and a Build is never part of it.
//
// It owns the compact copy of all slices, the index from a slice to the assignments that use it, the demand, failures
// and shares of every import, and the condition Overflowing. It never reads a route, never changes an object but
// through its Reporter, and never trusts what a slice says of its origin: the namespace alone names the cluster.
//
// # One changed slice
//
// A slice event costs the assignments that use its service, once per region, at any fleet size: the first event goes
// out at once, those that follow within 10 ms together.
//
// # Shares are soft state
//
// The version of a load assignment carries its shares, so a hub that has just started learns from the edges that come
// back which are in force (InitialVersions), and keeps them until every connected edge of the region has reported its load. Until
// then only a member that lost its last endpoint, or was drained, moves.
//
// # Backends that share addresses
//
// Envoy drops the second of two equal addresses in one cluster, so where two backends of an assignment select the same
// pods, the first in the order of the assignment keeps them and the other has no endpoint there. The metric
// crossway_assignment_overlapping_backends counts them by assignment's route.
//
// # Example
//
//	loop := endpoints.New(endpoints.Config{Cache: mgr.GetCache(), Publisher: xds, Reporter: writer})
//	mgr.Add(loop)                                              // runs on every replica
//	loop.SetAssignments(model.Assignments, model.Imports)      // after each Build, before its clusters are published
package endpoints
