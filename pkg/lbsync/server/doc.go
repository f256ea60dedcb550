// Package server is the wire between the hub and the Envoys of the fleet: a
// small delta ADS server and the load reporting service, both over mutual TLS.
//
// It owns who may open a stream (the client certificate alone says), what each
// connected edge holds, in which order changes leave (make before break), and
// what the edge answered. It knows an Envoy resource as a name, a version and
// bytes; it never builds or changes one, never reads Kubernetes, and never
// decides what an edge should have.
//
// What it sends, and when, follows from how Envoy 1.40 behaves:
//
//   - It never waits for an ACK to send the next change. Each stream holds one
//     entry per resource (the latest wins), so a slow edge costs no queue and
//     delays no other.
//   - Routes, scopes, assignments and secrets travel one per response: in a
//     response with one bad resource Envoy leaves out an unpredictable part of
//     the good ones. Clusters and listeners are batched; there the good ones of a
//     refused response count, and the culprits are found by name or one by one.
//   - A new or changed cluster warms until its load assignment arrives again, so
//     the assignment is re-sent, unchanged and unasked.
//   - Envoy ACKs clusters once they are warm: routes and listeners wait for that
//     (at most Config.WarmTimeout); clusters are removed after the routes and
//     listeners that used them were ACKed.
//   - removed_resources is ignored for assignments: none is ever sent for them.
//   - A refused resource is not sent again before its content changes, and the
//     first answer to a content counts: Envoy ACKs a bad secret on the second try.
//   - Before the hub has said what a pool should have, its edges get no answer at
//     all, for an empty one would wipe them.
//
// Example:
//
//	xds, err := server.New(server.Config{Identify: identityOf, Authorize: admitted, Observer: server.Observer{Load: demand.Add}})
//	grpcServer := server.NewGRPCServer(tlsConfig)
//	xds.Register(grpcServer)
//	xds.UpdateLoadAssignments("public-us", assignments, nil)
//	xds.SetResources("public-us", server.Snapshot{Generation: 1, Clusters: clusters, Listeners: listeners})
package server
