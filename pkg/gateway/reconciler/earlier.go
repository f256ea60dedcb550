package reconciler

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// objectOf is a route as the rollout takes it: the version that is served.
func (r *Reconciler) objectOf(route *gateway.Route) rollout.Object {
	if served := r.result.Fallback(route.Ref); served != nil && served.UID == route.UID {
		o := objectOfRoute(served)
		o.Accepted = true
		return o
	}
	return objectOfRoute(route)
}

// setServed tells the rollout of the routes that are served at an earlier generation after
// a Build, or were before.
func (r *Reconciler) setServed(last gateway.Result) {
	fallbacks := last.Fallbacks()
	maps.Copy(fallbacks, r.result.Fallbacks())
	for ref := range fallbacks {
		if at, found := findRoute(r.input.Routes, ref); found {
			r.rollout.SetObject(ref, r.objectOf(r.input.Routes[at]))
		}
	}
}

// keptRecords are the records of routes that are served at an earlier generation: for
// a hub that restarts, they are what a pool without a name refuses.
func (r *Reconciler) keptRecords() (records []rollout.Refusal) {
	for _, ref := range slices.SortedFunc(maps.Keys(r.result.Fallbacks()), fleet.RouteRef.Compare) {
		at, found := findRoute(r.input.Routes, ref)
		if !found {
			continue
		}
		records = append(records, rollout.Refusal{Ref: ref, Version: objectOfRoute(r.input.Routes[at]).ObjectVersion, Instead: new(r.objectOf(r.input.Routes[at]))})
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
