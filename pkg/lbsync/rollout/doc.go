// Package rollout brings Models to the edges and works out what their answers
// mean. Publish turns a Model into the Envoy resources of each EdgePool and
// returns what changed. ACKs and NACKs give the progress of each Gateway, and
// the rejections of routes and Gateways, which are an input of the next Build.
// Build leaves rejected routes out, and reports rejected Gateways but keeps them.
//
// It is pure. A Rollout is a value that one goroutine owns; its methods return
// what the owner should hand over, and do no I/O.
//
// Objects are identified by UID and generation, not by name alone, so a NACK
// about a deleted route never counts for a new route of the same name.
//
// # NACKs
//
// An edge NACKs a resource, which is made of many objects (envoy.Resource.Sources).
// The candidates are the routes that are new or changed since the last version
// of the resource that any edge ACKed. If Envoy's message quotes a value of some
// of them, such as a regular expression, only those are candidates and each is
// at fault. If no route changed, all routes of the resource are looked at, but
// only quoted ones count. Without a candidate, the Gateways that the resource
// serves are rejected until the resource changes.
//
// # States of a route
//
// Every version of a route (UID and generation) is in one State. The Model has
// it in Served and Readmitted, and not in Suspected and Rejected.
//
//	Served     -> Rejected    a NACK has this route as its only candidate, or quotes it;
//	                          or its status says that an edge rejected this version
//	                          (this hub before a restart, or another replica)
//	Served     -> Suspected   a NACK has several candidates and quotes none
//	Suspected  -> Readmitted  an edge ACKed the resource without the Suspected
//	                          routes, so a part of them is tried again
//	Readmitted -> Suspected   it is one of several candidates of another NACK
//	Readmitted -> Rejected    it is the only candidate of another NACK, or quoted
//	Served     -> Readmitted  the object was deleted and recreated: the new object's
//	                          status does not count
//	any        -> Served      the generation changes
//
// Readmitted differs from Served in one respect: a rejection in the route's status
// has no effect. It may still be there from when the route was Suspected, or be
// about a deleted object of the same name.
//
// Invariants:
//
//   - An entry is about one version. It has no effect once the object has another,
//     and the next Review removes it.
//   - While a route is Suspected, readmitNext has an entry for the resource that
//     was NACKed, so the route is readmitted or rejected some time.
//   - A NACK of a version with a route in it that is left out now has no effect:
//     the version without the route gets an answer of its own.
//   - An edge is not sent a version again that it NACKed, so it gives no second
//     answer. When that version is published again, the first NACK is taken in
//     again (AttributeAgain).
//
// Known limits:
//
//   - A status does not say which UID it is about, so after a restart of the hub
//     the rejection of a deleted route can count for its successor of the same
//     generation.
//   - Suspected and Rejected are the same in a status. A hub that restarts while
//     routes are Suspected leaves them out until they change.
//   - Two routes that Envoy rejects only together: the one that is readmitted
//     later is Rejected.
//   - A resource's history has at most 16 versions without an ACK. The NACK of an
//     older one has no effect.
//   - A hub replica knows only the NACKs of its own edges.
//
// Example:
//
//	r := rollout.New()
//	r.SetObjects(objects)
//	for _, snapshot := range r.Publish(model, pools).Snapshots {
//		server.SetResources(snapshot)
//	}
//	r.Nack(rollout.Nack{Resource: id, Version: "6b2f", Message: "invalid regex"})
//	rejections := r.Review() // [HTTPRoute shop/web at generation 3]
package rollout
