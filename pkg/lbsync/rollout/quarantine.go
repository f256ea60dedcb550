package rollout

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
)

// State is what the edges' NACKs mean for one version of a route. The package
// documentation has the transitions.
type State uint8

const (
	// Served routes are in the Model. It is the state of routes without an entry.
	Served State = iota
	// Suspected routes are left out: one of several routes made edges NACK.
	Suspected
	// Readmitted routes are served again. Their status may still say otherwise
	// and does not count.
	Readmitted
	// Rejected routes are left out: an edge rejects this version.
	Rejected
)

// String gives the state's name.
func (s State) String() string {
	return [...]string{"Served", "Suspected", "Readmitted", "Rejected"}[s]
}

// quarantined is the State of one version of a route.
type quarantined struct {
	object   ObjectVersion
	state    State
	message  string     // Envoy's error; empty for Readmitted
	resource ResourceID // Suspected: the resource that was NACKed
}

func (q quarantined) leftOut() bool { return q.state == Suspected || q.state == Rejected }

// Rejection is why the edges do not get one version of a route or of a Gateway.
type Rejection struct {
	Ref        fleet.ObjectRef
	UID        types.UID
	Generation int64
	Message    string // Envoy's error
}

// Attribution says what a NACK led to.
type Attribution struct {
	Candidates []fleet.RouteRef // the routes that may have caused it
	// Rejected are the rejections that are new because of it. A route that is
	// only Suspected is not one of them.
	Rejected []Rejection
}

// Nack takes in that an edge rejected a version of a resource.
func (r *Rollout) Nack(n Nack) Attribution {
	r.history.nack(n)
	return r.attribute(n)
}

// AttributeAgain takes in again the NACKs of versions that are published now. A
// route that is repaired and broken again has a version that no edge is asked
// about twice.
func (r *Rollout) AttributeAgain() []Rejection {
	var rejected []Rejection
	for _, n := range r.history.standing() {
		rejected = append(rejected, r.attribute(n).Rejected...)
	}
	return rejected
}

// attribute quarantines the routes that may have caused a NACK. If no route
// can have, the Gateways that the resource serves are rejected.
func (r *Rollout) attribute(n Nack) Attribution {
	at := r.history.find(n.Resource, n.Version)
	if at < 0 || r.isExplained(r.history.versions[n.Resource][at].routes) {
		return Attribution{} // its successor without the quarantined routes will be answered, too
	}
	nacked := r.history.versions[n.Resource][at]
	candidates, definite := r.history.candidates(n, r.acceptedBeforeStart, func(message string) map[fleet.RouteRef]bool {
		return quotedRoutes(&r.model, message)
	})
	if len(candidates) == 0 {
		return Attribution{Rejected: r.rejectGateways(n)}
	}
	result := Attribution{Candidates: candidates}
	isNewest := r.history.newest(n.Resource).version == n.Version
	for _, ref := range candidates {
		object, exists := r.objects[ref]
		if !exists || object != nacked.routes[ref] && !isNewest { // the route has changed since
			continue
		}
		next := quarantined{object: object, state: Suspected, message: n.Message, resource: n.Resource}
		if definite {
			next.state = Rejected
			result.Rejected = append(result.Rejected, rejectionOf(ref, next))
		}
		r.quarantine[ref] = next
	}
	delete(r.readmitNext, n.Resource)
	if len(r.suspectedFor(n.Resource)) > 0 {
		r.readmitNext[n.Resource] = max(1, len(candidates)/2)
	}
	return result
}

// rejectGateways notes a NACK that no route explains.
func (r *Rollout) rejectGateways(n Nack) []Rejection {
	last, ok := r.gatewayNacks[n.Resource]
	r.gatewayNacks[n.Resource] = n
	if ok && last.Version == n.Version {
		return nil
	}
	return r.gatewayRejections(n)
}

func (r *Rollout) gatewayRejections(n Nack) []Rejection {
	var out []Rejection
	for _, ref := range r.gatewaysOf(n.Resource) {
		if object, exists := r.objects[ref]; exists {
			out = append(out, rejectionOf(ref, quarantined{object: object, message: n.Message}))
		}
	}
	return out
}

func rejectionOf(ref fleet.ObjectRef, q quarantined) Rejection {
	return Rejection{Ref: ref, UID: q.object.UID, Generation: q.object.Generation, Message: q.message}
}

// gatewaysOf returns the Gateways that a published resource serves: those that
// it was made of, or else, for a cluster or a certificate, those of the
// resources that have a source in common with it.
func (r *Rollout) gatewaysOf(id ResourceID) []fleet.ObjectRef {
	var sources []fleet.ObjectRef
	for _, pool := range r.pools {
		for resource := range resourcesIn(pool.Resources) {
			if idOf(resource) == id {
				sources = resource.Sources
			}
		}
	}
	gateways := map[fleet.ObjectRef]bool{}
	collect := func(refs []fleet.ObjectRef) {
		for _, ref := range refs {
			if ref.Kind == gatewayRef(ref.Name).Kind {
				gateways[ref] = true
			}
		}
	}
	collect(sources)
	if len(gateways) == 0 {
		for _, pool := range r.pools {
			for resource := range resourcesIn(pool.Resources) {
				if slices.ContainsFunc(sources, func(ref fleet.ObjectRef) bool { return slices.Contains(resource.Sources, ref) }) {
					collect(resource.Sources)
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(gateways), fleet.ObjectRef.Compare)
}

// isExplained reports whether a version has a route in it that is left out now.
func (r *Rollout) isExplained(routes routeVersions) bool {
	for ref, object := range routes {
		if q, ok := r.quarantine[ref]; ok && q.leftOut() && q.object == object {
			return true
		}
	}
	return false
}

// suspectedFor are the routes that are Suspected because of one resource, sorted.
func (r *Rollout) suspectedFor(id ResourceID) []fleet.RouteRef {
	var refs []fleet.RouteRef
	for ref, q := range r.quarantine {
		if q.state == Suspected && q.resource == id {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, fleet.RouteRef.Compare)
	return refs
}

// Review moves quarantined routes on and returns the rejections that count now,
// by object. Build leaves rejected routes out, and reports rejected Gateways but
// keeps them.
func (r *Rollout) Review() []Rejection {
	r.readmit()
	r.forgetGatewayNacks()
	r.takeOverStored()
	maps.DeleteFunc(r.quarantine, func(ref fleet.RouteRef, q quarantined) bool { return r.objects[ref] != q.object })
	var out []Rejection
	for ref, q := range r.quarantine {
		if q.leftOut() {
			out = append(out, rejectionOf(ref, q))
		}
	}
	for _, n := range r.gatewayNacks {
		out = append(out, r.gatewayRejections(n)...)
	}
	slices.SortFunc(out, func(a, b Rejection) int { return cmp.Or(a.Ref.Compare(b.Ref), strings.Compare(a.Message, b.Message)) })
	return slices.CompactFunc(out, func(a, b Rejection) bool { return a.Ref == b.Ref }) // a Gateway once
}

// readmit serves a part of the Suspected routes of a resource again once an
// edge has ACKed the resource without them. If that is NACKed, they alone are
// the candidates, and fewer are readmitted next; if it is ACKed, twice as many.
// So n routes that changed at once, k of them at fault, need about k log n
// versions.
func (r *Rollout) readmit() {
	for id, n := range r.readmitNext {
		suspected := r.suspectedFor(id)
		if len(suspected) > 0 && !r.history.isAcked(id) {
			continue
		}
		for _, ref := range suspected[:min(n, len(suspected))] {
			r.quarantine[ref] = quarantined{object: r.quarantine[ref].object, state: Readmitted}
		}
		if r.readmitNext[id] = 2 * n; n >= len(suspected) {
			delete(r.readmitNext, id)
		}
	}
}

// forgetGatewayNacks forgets the NACKs of versions that no pool has any more. A
// listener has another address, and so another version, in each pool: the
// version that was published last says nothing.
func (r *Rollout) forgetGatewayNacks() {
	maps.DeleteFunc(r.gatewayNacks, func(id ResourceID, n Nack) bool {
		for _, pool := range r.pools {
			for resource := range resourcesIn(pool.Resources) {
				if idOf(resource) == id && resource.Version == n.Version {
					return false
				}
			}
		}
		return true
	})
}

// takeOverStored rejects the routes whose status says that an edge rejected
// their present version, unless this process knows more about that version.
func (r *Rollout) takeOverStored() {
	for ref, stored := range r.storedRejections {
		if q, ok := r.quarantine[ref]; !ok || q.object != stored.object {
			r.quarantine[ref] = stored
		}
	}
}

// AwaitsAck reports whether Suspected routes wait for an ACK.
func (r *Rollout) AwaitsAck() bool { return len(r.readmitNext) > 0 }

// HasWork reports whether another Review would change something although no
// edge answers.
func (r *Rollout) HasWork() bool {
	for id := range r.readmitNext {
		if r.history.isAcked(id) {
			return true
		}
	}
	return slices.ContainsFunc(r.history.standing(), func(n Nack) bool {
		return r.gatewayNacks[n.Resource].Version != n.Version && !r.isExplained(r.history.newest(n.Resource).routes)
	})
}
