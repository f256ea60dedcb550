package rollout

import (
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// ObjectVersion is one generation of one object. A deleted and recreated object
// of the same name has another UID.
type ObjectVersion struct {
	UID        types.UID
	Generation int64
}

// Object is a Gateway or a route.
type Object struct {
	ObjectVersion
	// Accepted: the status of this generation says that a route is accepted, or
	// that a Gateway is programmed.
	Accepted bool
	// Source is a route as whoever builds Models takes it. It is given back in
	// Views and never read.
	Source any
}

// Rollout is the state between Models and the edges: what they should get and
// what they have answered.
type Rollout struct {
	translator  *translator
	published   bool // a first Model
	model       model.Model
	assignments []model.Assignment // of all Models
	pools       map[string]*pool
	views       []View // of the last Review
	viewModels  map[string]model.Model
	replicas    []Replica

	objects             map[fleet.ObjectRef]Object        // Gateways and routes that exist
	earlier             map[fleet.RouteRef][]earlier      // the oldest first
	acceptedBeforeStart map[fleet.ObjectRef]ObjectVersion // by status, before the first Publish; Gateways, too
	restored            map[string][]Refusal              // by pool, until the pool is published
	unpublished         map[fleet.RouteRef]bool           // changed since the last Publish

	gateways gatewayRollouts
	// served are the Gateways of each pool. Nil: to be made anew.
	served map[string]map[fleet.ObjectName]ServedGateway
}

// pool is the state of one EdgePool.
type pool struct {
	name     string
	snapshot Snapshot
	edges    map[uint64]*edge               // connected, by stream
	since    map[fleet.RouteRef]publication // of each route's present version
	refused  map[fleet.RouteRef]Refusal     // by the pool as a whole
	outvoted map[fleet.RouteRef]Refusal     // by single edges
	overlays map[string]envoy.Resources     // what the edges of each View get instead
	taken    uint64                         // the newest snapshot that an edge took whole
	settled  uint64                         // the newest snapshot that all edges have answered
}

// publication is the first snapshot of a pool that had a version of a route.
type publication struct {
	version    ObjectVersion
	generation uint64
	taken      bool // by an edge that refuses other routes, or by one of another replica
}

// earlier is an earlier version of a route. An edge may still have it.
type earlier struct {
	Object
	since   map[string]uint64 // the first snapshot of each pool that had it
	takenIn map[string]bool   // pools in which an edge took it
}

// maxEarlier bounds the earlier versions of a route.
const maxEarlier = 4

// New makes a Rollout that has published nothing.
func New() *Rollout {
	return &Rollout{
		translator: newTranslator(), pools: map[string]*pool{}, viewModels: map[string]model.Model{},
		objects: map[fleet.ObjectRef]Object{}, earlier: map[fleet.RouteRef][]earlier{},
		acceptedBeforeStart: map[fleet.ObjectRef]ObjectVersion{}, restored: map[string][]Refusal{},
		unpublished: map[fleet.RouteRef]bool{}, gateways: gatewayRollouts{},
	}
}

func newPool(name string) *pool {
	return &pool{name: name, edges: map[uint64]*edge{}, since: map[fleet.RouteRef]publication{}, refused: map[fleet.RouteRef]Refusal{}, outvoted: map[fleet.RouteRef]Refusal{}}
}

// SetObject takes in an object that exists.
func (r *Rollout) SetObject(ref fleet.ObjectRef, o Object) {
	last, existed := r.objects[ref]
	r.objects[ref] = o
	if !r.published {
		if delete(r.acceptedBeforeStart, ref); o.Accepted {
			r.acceptedBeforeStart[ref] = o.ObjectVersion
		}
	}
	if !isRoute(ref) || existed && last.ObjectVersion == o.ObjectVersion {
		return
	}
	switch {
	case existed && last.UID != o.UID:
		delete(r.earlier, ref)
	case existed && !r.unpublished[ref]:
		r.keep(ref, last)
	}
	r.unpublished[ref] = true
}

// keep keeps a version of a route that has just been replaced.
func (r *Rollout) keep(ref fleet.RouteRef, o Object) {
	version := earlier{Object: o, since: map[string]uint64{}, takenIn: map[string]bool{}}
	for name, p := range r.pools {
		if at, published := p.since[ref]; published && at.version.UID == o.UID {
			version.since[name] = at.generation
		}
	}
	all := append(r.earlier[ref], version)
	if len(all) > maxEarlier { // the oldest one is what an edge falls back to that refused all others
		all = append(all[:1:1], all[2:]...)
	}
	r.earlier[ref] = all
}

// noteReplaced notes which pools took the versions that the next Publish replaces. It
// comes after the Review of all that edges answered before.
func (r *Rollout) noteReplaced() {
	for ref := range r.unpublished {
		all := r.earlier[ref]
		if len(all) == 0 {
			continue
		}
		last := all[len(all)-1]
		for name := range last.since {
			if p := r.pools[name]; p != nil && p.hasTaken(ref) {
				last.takenIn[name] = true
			}
		}
	}
}

// DeleteObject takes in that an object is gone.
func (r *Rollout) DeleteObject(ref fleet.ObjectRef) {
	delete(r.objects, ref)
	delete(r.earlier, ref)
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

// Restore takes in the Refusals that another process left, after the objects and
// before the first Publish. A Refusal of a version that has changed since still
// says what the pool last accepted.
func (r *Rollout) Restore(refusals []Refusal) {
	for _, f := range refusals {
		present, exists := r.objects[f.Ref]
		if !exists || present.UID != f.Version.UID {
			continue
		}
		if f.Instead != nil {
			r.earlier[f.Ref] = append(r.earlier[f.Ref], earlier{Object: *f.Instead, takenIn: map[string]bool{f.Pool: true}})
		}
		if present.ObjectVersion == f.Version {
			r.restored[f.Pool] = append(r.restored[f.Pool], f)
		}
	}
}

// forgetEarlier drops the earlier versions that no edge needs any more: all
// edges have answered a snapshot with the present version, and nobody refuses it.
func (r *Rollout) forgetEarlier() {
	for ref := range r.earlier {
		if !r.needsEarlier(ref) {
			delete(r.earlier, ref)
		}
	}
}

func (r *Rollout) needsEarlier(ref fleet.RouteRef) bool {
	for _, p := range r.pools {
		at, published := p.since[ref]
		if !published {
			continue
		}
		_, refused := p.refused[ref]
		if _, outvoted := p.outvoted[ref]; refused || outvoted || at.generation > p.settled {
			return true
		}
		for _, e := range p.edges {
			if _, falls := e.fallback[ref]; falls || e.verdicts[ref].leftOut() {
				return true
			}
		}
	}
	return false
}
