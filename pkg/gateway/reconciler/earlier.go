package reconciler

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// keptRoute is a route of which an earlier version is served, because the present
// one is over budget.
type keptRoute struct {
	present rollout.ObjectVersion
	served  rollout.Object
}

// objectOf is a route as the rollout takes it: the version that is served.
func (r *Reconciler) objectOf(route *gateway.Route) rollout.Object {
	if kept, found := r.kept[route.Ref]; found && kept.served.UID == route.UID {
		return kept.served
	}
	return objectOfRoute(route)
}

// keep tells the rollout which routes are served at an earlier generation after a
// Build, and which are not any more.
func (r *Reconciler) keep() {
	last := r.kept
	r.kept = make(map[fleet.RouteRef]keptRoute, len(last))
	for ref, version := range r.result.Fallbacks() {
		at, _ := findRoute(r.input.Routes, ref)
		present := r.input.Routes[at]
		kept := keptRoute{present: objectOfRoute(present).ObjectVersion, served: objectOfRoute(version)}
		kept.served.Accepted = true
		r.kept[ref] = kept
		if last[ref].served.ObjectVersion != kept.served.ObjectVersion {
			r.rollout.SetObject(ref, kept.served)
		}
	}
	for ref := range last {
		if _, still := r.kept[ref]; still {
			continue
		}
		if at, found := findRoute(r.input.Routes, ref); found {
			r.rollout.SetObject(ref, objectOfRoute(r.input.Routes[at]))
		}
	}
}

// keptRecords are the records of routes that are served at an earlier generation: for
// a hub that restarts, they are what a pool without a name refuses.
func (r *Reconciler) keptRecords() (records []rollout.Refusal) {
	for _, ref := range slices.SortedFunc(maps.Keys(r.kept), fleet.RouteRef.Compare) {
		kept := r.kept[ref]
		records = append(records, rollout.Refusal{Ref: ref, Version: kept.present, Instead: &kept.served})
	}
	return records
}

// restoreKept takes in keptRecords of another process, and returns the other records.
func (r *Reconciler) restoreKept(records []rollout.Refusal) []rollout.Refusal {
	return slices.DeleteFunc(records, func(f rollout.Refusal) bool {
		if f.Pool == "" && f.Instead != nil {
			r.earlier[f.Ref] = f.Instead.Source.(*gateway.Route)
		}
		return f.Pool == ""
	})
}
