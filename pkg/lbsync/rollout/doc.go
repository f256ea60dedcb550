// Package rollout brings Models to the edges and works out what their answers
// mean. Publish turns Models into the Envoy resources of each EdgePool and returns
// what changed. Review takes in how far each edge is, and returns the Views that
// are needed: the routes that some edges refuse, and what these get instead.
//
// It is pure. A Rollout is a value that one goroutine owns; its methods return
// what the owner should hand over, and do no I/O.
//
// Objects are identified by UID and generation, not by name alone, so a NACK
// about a deleted route never counts for a new route of the same name.
//
// # NACKs are judged edge by edge
//
// An edge NACKs a resource, which is made of many objects (envoy.Resource.Sources).
// What follows from it concerns that edge alone: it gets an override, the resource
// of a View in which the last generation that it took of the refused route is in
// the place of the present one, or the route is left out. All other edges go on
// getting the present generation. So an edge can take nothing away from another,
// changes of other routes still arrive at an edge that refuses one, and an edge
// that starts anew or is upgraded is offered the present generation.
//
// The candidates of a NACK are the routes whose version is newer than what the edge
// had answered before. That is the last snapshot that it answered whole, or the one of
// which it took the resource (ResourceNack.Has): under steady change no snapshot is
// answered whole before the next one. If Envoy's message quotes a value of some of them, such as a
// regular expression, only those are. A quotation never makes a route a candidate.
//
// An edge that has answered nothing yet on its stream may have come with any
// version of any route. The candidates are then the routes that its pool refused before,
// or else those that no edge of the pool took, or else those that no status
// accepted before this hub started. If there is none, an edge that has nothing of
// the resource is tried with all routes, and any other keeps what it has.
//
// Without a candidate the edge keeps what it has of the resource, and its EdgePool
// says so (EdgeRefusals).
//
// # States of a route on an edge
//
// Every version of a route (UID and generation) is in one State on each edge. The
// edge gets it in Served and Readmitted, and not in Suspected and Rejected.
//
//	Served     -> Rejected    a NACK has this route as its only candidate, or quotes it
//	Served     -> Suspected   a NACK has several candidates and quotes none
//	Suspected  -> Readmitted  the edge took the resource without the Suspected
//	                          routes, so a part of them is tried again
//	Readmitted -> Suspected   it is one of several candidates of another NACK
//	Readmitted -> Rejected    it is the only candidate of another NACK, or quoted
//	Readmitted -> Served      the edge took it
//	any        -> Served      the generation changes, or the stream ends
//
// What an edge gets instead is the last generation that any edge of its pool took, so
// that edges at different generations need one View. It is unproven if this edge may
// never have had it. Should the edge NACK that, too, it gets the one that it has, or else
// the route is left out for it.
//
// # What a pool refuses
//
// A route is refused in a pool if all its connected edges, of all replicas of the hub,
// reject its version and none ever took it (Refusal). Its status says so. If any took it, the NACKs
// are held against the edges that sent them, and only the EdgePool's status says so.
// A Refusal stays while no edge is connected. It ends when the version changes or an
// edge takes it.
//
// # Several replicas of the hub
//
// Each replica judges the NACKs of its own edges, and serves overrides to them alone. What
// came of it is in its Answers, in versions of objects: numbers of snapshots mean something
// in one process only. Each replica takes in the Answers of all others (SetReplicas), so that
// all come to the same Progress, PoolEdges, Refusals and Records, and whoever leads writes the
// same. An edge counts once, whatever several replicas say of it (countedEdges).
//
// A refusal travels with the earlier version that its edges get. So an edge that comes to
// another replica gets what it had, although that replica's own edges have long taken the
// present version.
//
// Invariants:
//
//   - A verdict is about one version. It has no effect once the object has another,
//     and the next Review removes it.
//   - While a route is Suspected on an edge, readmitNext has an entry for the
//     resource that was NACKed, so the route is readmitted or rejected some time.
//   - An earlier version of a route is kept while an edge may have it or may need it.
//   - A pool has at most maxViews Views. Edges beyond keep what they have.
//
// Known limits:
//
//   - A hub that dies between a NACK and its record leaves the route out of the edges
//     that refuse it until the route changes.
//   - Two routes that Envoy rejects only together: the one that is readmitted
//     later is Rejected.
//   - Clusters, secrets and listeners without a route of their own have no earlier
//     version here; the edge keeps the one that it took.
//
// Example:
//
//	r := rollout.New()
//	r.SetObjects(objects)
//	for {
//		reviewed := r.Review(progress)
//		for _, snapshot := range r.Publish(model, modelsOf(reviewed.Views), pools).Snapshots {
//			server.SetResources(snapshot)
//		}
//		tellOthers(r.Answers(progress))
//	}
package rollout
