// Package delta is the state of the delta xDS protocol as plain values: the
// resources that the edges of a pool should have, what each edge has been sent
// and has applied, and which response is to be sent next. It is named after the
// protocol variant, as go-control-plane names its own.
//
// The package is pure. It has no lock, no clock and no connection: the caller
// serializes calls for one Pool and its Streams, passes the time, receives the
// requests and sends the responses (package server does all of that). A resource is a
// name, a version and bytes; protobuf messages are used only for the requests and
// responses of the protocol.
//
// What is sent, and when, follows from how Envoy 1.40 behaves:
//
//   - No version of a resource waits for the ACK of the version before it. A
//     Stream has one entry per resource and sends its newest version, so that a
//     slow edge costs no queue and delays no other.
//   - Routes, assignments and secrets travel one per response: from a
//     response with one bad resource Envoy leaves out an unpredictable part of
//     the good ones. Clusters and listeners are batched: Envoy keeps the good
//     ones of a NACKed response. The bad ones are found by the names in Envoy's
//     message, otherwise each is sent again alone.
//   - A new or changed cluster warms until its load assignment arrives. For a new
//     cluster Envoy asks for the assignment. For a changed one it does not,
//     because it has subscribed to it already, so it is sent again.
//   - Envoy ACKs clusters once they are warm. Routes and listeners wait for that
//     (at most the warm timeout). Clusters are removed after the routes and
//     listeners that used them were ACKed (make before break).
//   - Envoy ignores removed_resources for assignments: none are sent for them.
//   - A NACKed resource is not sent again to that edge before its version changes.
//     Envoy ACKs a bad secret when it gets it a second time, so a second answer
//     to the same version would be wrong.
//   - Before the first SetResources of a pool its edges get nothing but the runtime:
//     an empty response would delete their configuration. Envoy asks for the runtime
//     first, and for the rest once it has it.
//
// # States of one resource on one edge
//
// An entry has up to three versions: sent, applied and NACKed.
//
//	not sent       sent != desired     queued, until Next sends it
//	in flight      sent == desired     applied != desired, no answer yet
//	applied        applied == desired  the edge ACKed it, or had it when it connected
//	NACKed         nack == desired     not sent again; the applied version stays in force
//	to be removed  nothing is desired  clusters and listeners: named in removed_resources;
//	                                   other types: nothing is sent, Envoy unsubscribes by name
//
// Example:
//
//	pool := delta.NewPool()
//	pool.UpdateLoadAssignments(assignments, nil)
//	pool.SetResources(delta.Snapshot{Generation: 1, Clusters: clusters, Listeners: listeners})
//	stream := pool.Open("envoy-0", 5*time.Second)
//	received := stream.Receive(kind, request)
//	response, wait := stream.Next(now)
package delta
