package rollout

import (
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// ObjectVersion is one generation of one object. A deleted and recreated object
// of the same name has another UID.
type ObjectVersion struct {
	UID        types.UID
	Generation int64
}

// Object is a Gateway or a route, with what its status says about its present
// generation.
type Object struct {
	ObjectVersion
	// Accepted: a route is accepted, or a Gateway is programmed.
	Accepted bool
	// Rejected: an edge rejected a route, with Message.
	Rejected bool
	Message  string
}

// Rollout is the state between a Model and the edges: what they should get and
// what they have answered.
type Rollout struct {
	translator *translator
	model      model.Model
	published  bool                // a first Model
	pools      map[string]Snapshot // the last of each

	objects             map[fleet.ObjectRef]ObjectVersion // Gateways and routes that exist
	acceptedBeforeStart routeVersions                     // by status, before the first Publish; Gateways, too

	history      history
	quarantine   map[fleet.RouteRef]quarantined
	gatewayNacks map[ResourceID]Nack // that no route explains
	// storedRejections are what statuses say, about versions in objects.
	storedRejections map[fleet.RouteRef]quarantined
	// readmitNext is how many Suspected routes of a resource to readmit next.
	readmitNext map[ResourceID]int

	gateways gatewayRollouts
}

// New makes a Rollout that has published nothing.
func New() *Rollout {
	return &Rollout{
		translator: newTranslator(), pools: map[string]Snapshot{},
		objects: map[fleet.ObjectRef]ObjectVersion{}, acceptedBeforeStart: routeVersions{},
		history: newHistory(), quarantine: map[fleet.RouteRef]quarantined{}, gatewayNacks: map[ResourceID]Nack{},
		storedRejections: map[fleet.RouteRef]quarantined{}, readmitNext: map[ResourceID]int{},
		gateways: gatewayRollouts{},
	}
}

// SetObject takes in an object that exists.
func (r *Rollout) SetObject(ref fleet.ObjectRef, o Object) {
	last, existed := r.objects[ref]
	r.objects[ref] = o.ObjectVersion
	if !r.published {
		if delete(r.acceptedBeforeStart, ref); o.Accepted {
			r.acceptedBeforeStart[ref] = o.ObjectVersion
		}
	}
	if existed && last.UID != o.UID && isRoute(ref) {
		// The status writer goes by name, so the new object's status may have got
		// what was meant for the old one.
		r.quarantine[ref] = quarantined{object: o.ObjectVersion, state: Readmitted}
	}
	if delete(r.storedRejections, ref); o.Rejected {
		r.storedRejections[ref] = quarantined{object: o.ObjectVersion, state: Rejected, message: o.Message}
	}
}

// DeleteObject takes in that an object is gone.
func (r *Rollout) DeleteObject(ref fleet.ObjectRef) {
	delete(r.objects, ref)
	delete(r.storedRejections, ref)
	delete(r.quarantine, ref)
}

// SetObjects takes in all objects that exist.
func (r *Rollout) SetObjects(all map[fleet.ObjectRef]Object) {
	for ref := range r.objects {
		if _, exists := all[ref]; !exists {
			r.DeleteObject(ref)
		}
	}
	for ref, o := range all {
		r.SetObject(ref, o)
	}
}

// Ack takes in that an edge has a version of a resource: it ACKed it, or had it
// when it connected.
func (r *Rollout) Ack(id ResourceID, version string) { r.history.ack(id, version) }
