package gateway

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// This file is what was accepted before: which Gateways accept a route, as its status
// says; and which version of a route was accepted last, until its status accepts a newer
// one.

// AcceptedBy are the Gateways of ours that accept this generation of the route, as
// its status says, in the order of the status. One that edges refuse is accepted, too:
// it keeps its place while they serve an earlier one. So does the earlier one, which
// is in the place of the present one (InsteadOf).
func (r *Route) AcceptedBy() []fleet.ObjectName {
	if r.present != nil {
		return acceptedBy(r.present.Status, r.present)
	}
	return acceptedBy(r.Status, r)
}

// acceptedBy are the Gateways of ours that accept a version of a route, as a status of
// the route says.
func acceptedBy(status []gatewayv1.RouteParentStatus, version *Route) (gateways []fleet.ObjectName) {
	for i := range status {
		p := &status[i]
		if p.ControllerName != v1alpha1.GatewayController {
			continue
		}
		refused := slices.ContainsFunc(p.Conditions, func(c metav1.Condition) bool {
			return c.ObservedGeneration == version.Generation && condition.IsFellBack(c)
		})
		if slices.ContainsFunc(p.Conditions, func(c metav1.Condition) bool {
			return c.Type == string(gatewayv1.RouteConditionAccepted) && c.Status == metav1.ConditionTrue && (refused || c.ObservedGeneration == version.Generation)
		}) {
			gateways = append(gateways, parentName(version.Ref, &p.ParentRef))
		}
	}
	return gateways
}

// Earlier are the versions of routes that were accepted last, for routes whose status
// does not say yet that a newer version is.
type Earlier map[fleet.RouteRef]*Route

// Note takes in what becomes of the routes of a Result. Both lists are in the order
// of Ref.
func (e Earlier) Note(last Result, before, now []*Route) {
	if model.SameSlice(before, now) {
		return
	}
	at := 0
	for _, route := range now {
		for at < len(before) && before[at].Ref.Compare(route.Ref) < 0 {
			at++
		}
		if at == len(before) || before[at].Ref != route.Ref || before[at].UID != route.UID || before[at].Generation == route.Generation {
			continue
		}
		if last.Fallback(route.Ref) != nil || len(last.acceptedBy(route.Ref)) == 0 {
			continue
		}
		// Edits may come faster than statuses are written: what none accepts is no
		// replacement for what one did.
		if e[route.Ref] == nil || len(acceptedBy(route.Status, before[at]))+len(before[at].AcceptedBy()) > 0 {
			e[route.Ref] = before[at]
		}
	}
	for ref, earlier := range e {
		at, found := slices.BinarySearchFunc(now, ref, func(r *Route, ref fleet.RouteRef) int { return r.Ref.Compare(ref) })
		if !found || now[at].UID != earlier.UID || now[at].Generation <= earlier.Generation || len(now[at].AcceptedBy()) > 0 {
			delete(e, ref)
		}
	}
}

// Build is Build, but routes that are over budget are served as they were accepted last.
// It updates the routes, the Memo and the WiderAdmissions of the Input.
func (e Earlier) Build(in *Input) Result {
	for {
		result := Build(*in)
		in.Memo = result.Memo
		over := map[fleet.RouteRef]bool{}
		for at := range result.Memo.overBudget {
			over[at.route] = true
		}
		routes, added := in.Routes, false
		for i, route := range in.Routes {
			earlier := e[route.Ref]
			if (earlier == nil) == (route.earlier == nil) || route.earlier == nil && !over[route.Ref] {
				continue
			}
			if model.SameSlice(routes, in.Routes) {
				routes = slices.Clone(routes)
			}
			routes[i], added = route.WithEarlier(earlier), added || earlier != nil
		}
		if in.Routes = routes; !added {
			in.WiderAdmissions = result.WiderAdmissions
			return result
		}
	}
}

// Confirmation is a route of the Input with the status that it has by now, if that
// status says of its acceptance what the Result decided. A Build would then have the
// same Result: whoever wrote the status only repeated it. Nor do other routes find room
// then, or lose it: all that are admitted fit together, in whatever order. A route of
// which an earlier version is served, or was, is none.
func (r *Result) Confirmation(present, now *Route) (*Route, bool) {
	if r.Memo == nil || r.Fallback(now.Ref) != nil || present.earlier != nil || present.UID != now.UID || present.Generation != now.Generation {
		return nil, false
	}
	report := r.reportOn(now.Ref)
	if report == nil || len(report.Parents) == 0 && !now.HasOurStatus() { // reported on for its status alone
		return nil, false
	}
	if !slices.Equal(distinct(r.acceptedBy(now.Ref)), distinct(now.AcceptedBy())) {
		return nil, false
	}
	confirmed := *present
	confirmed.Status = now.Status
	return &confirmed, true
}

func distinct(names []fleet.ObjectName) []fleet.ObjectName {
	slices.SortFunc(names, fleet.ObjectName.Compare)
	return slices.Compact(names)
}

// reportOn is the report on an object, or nil.
func (r *Result) reportOn(ref fleet.ObjectRef) *objectReport {
	at, found := slices.BinarySearchFunc(r.reports, ref, func(x *objectReport, ref fleet.ObjectRef) int { return x.Ref.Object().Compare(ref) })
	if !found {
		return nil
	}
	return r.reports[at]
}

// acceptedBy are the Gateways that accept a route by this Result, in its present version or an
// earlier one.
func (r *Result) acceptedBy(ref fleet.RouteRef) (gateways []fleet.ObjectName) {
	report := r.reportOn(ref)
	for i := 0; report != nil && i < len(report.Parents); i++ {
		if parent := &report.Parents[i]; parent.Conditions[0].Status == metav1.ConditionTrue {
			gateways = append(gateways, parentName(ref, &parent.ParentRef))
		}
	}
	return gateways
}

// Fallback is the earlier version of a route that is served instead of the present one, which
// is over budget; nil: none is.
func (r *Result) Fallback(ref fleet.RouteRef) *Route {
	if r.Memo == nil || r.Memo.kept[ref] == nil {
		return nil
	}
	return r.Memo.kept[ref].version
}

// Fallbacks are all of these.
func (r *Result) Fallbacks() map[fleet.RouteRef]*Route {
	fallbacks := map[fleet.RouteRef]*Route{}
	if r.Memo != nil {
		for ref, f := range r.Memo.kept {
			fallbacks[ref] = f.version
		}
	}
	return fallbacks
}
