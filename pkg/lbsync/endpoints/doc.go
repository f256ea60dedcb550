// Package endpoints publishes load assignments: EndpointSlices, members, pools and load reports -> state -> lbsync.Assign
// -> the edges. It is the path from an endpoint to Envoy, and a Build is never part of it.
//
// The package does the I/O: it watches objects, collects changes, encodes load assignments on all processors, hands them
// to the Publisher, and writes metrics, logs and Events. What it knows of the fleet is in package state, which is pure.
// It never reads a route, changes no object but through its Reporter, and never trusts what a slice says of its origin:
// the namespace alone names the cluster.
//
// # One changed slice
//
// A slice event costs the assignments that use its service, once per region, at any fleet size: the first event goes
// out at once, later ones within 10 ms together.
//
// # Shares are soft state
//
// The version of a load assignment carries its shares. A hub that has just started learns from its edges which shares are
// in force (InitialVersions): those that most edges of the region hold. It keeps them until every connected edge of the
// region has reported its load. Until then only members move that lost their last endpoint or were drained.
//
// # Replicas of the hub
//
// Each tells the others what its edges report (Config.Load), and what is in force at it (Config.Shares). One of them divides
// the demand, and the others adopt its shares (state.Decider). Their edges have the same versions.
//
// # Backends that share addresses
//
// Envoy drops the second of two equal addresses in one cluster. Where two backends of an assignment select the same pods,
// the first in the order of the assignment keeps them and the other has no endpoint there. The metric
// crossway_assignment_overlapping_backends counts such backends by the assignment's route.
//
// # Example
//
//	loop := endpoints.New(endpoints.Config{Cache: mgr.GetCache(), Publisher: xds, Reporter: writer})
//	mgr.Add(loop)                                              // runs on every replica
//	loop.SetAssignments(model.Assignments, model.Imports)      // after each Build, before its clusters are published
package endpoints
