package gateway

import (
	"slices"

	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// route is a Route during one Build.
type route struct {
	*routeResult
	object  *Route // the present version
	order   int    // by age
	emitted bool   // its assignments are in the Model
}

// routeResult is the result of evaluating a Route. It is immutable once evaluate
// returns, because a Memo may keep it.
type routeResult struct {
	ref          fleet.RouteRef
	plan         *routePlan
	rules        []model.Rule // in precedence order
	assignments  []model.Assignment
	unresolved   []condition.Condition // one for each invalid reference, in spec order
	policies     []fleet.ObjectRef     // that act on its backends
	attachPoints []attachPoint
	places       []place            // where it is served, if there is room, in order
	gateways     []fleet.ObjectName // of places, in order
	report       objectReport
	ours         bool // a parent is, or was, a Gateway of ours

	earlier bool               // it is an earlier version of a route (InsteadOf)
	taken   []model.Assignment // then: those of the present version
}

// attachPoint is a listener that a route attaches to.
type attachPoint struct {
	gateway  fleet.ObjectName
	listener int  // in spec.listeners
	served   bool // the listener serves the route's hosts
	accepted bool // the listener counts the route in attachedRoutes
}

// attachment is a route on one host of a listener.
type attachment struct {
	host  string
	route *route
}

// attach attaches a route to the listeners of its attach points, and reports on
// the route if one of its parents is, or was, a Gateway of ours.
func (b *build) attach(object *Route, result *routeResult, order int) {
	r, kept := &route{routeResult: result, object: object, order: order}, b.kept[result.ref]
	if kept != nil {
		r.routeResult = kept.result
	}
	for _, p := range r.attachPoints {
		if _, over := b.overBudget[routeAt{r.ref, p.gateway}]; over || kept != nil && !slices.Contains(kept.gateways, p.gateway) {
			continue
		}
		l := b.parents[p.gateway].listeners[p.listener]
		if p.served {
			l.attach(r)
		}
		if p.accepted {
			l.count(r)
		}
	}
	if result.ours {
		b.reports = append(b.reports, b.reportWithBudgets(result))
	}
}

// evaluate computes a route's result: its plan, its resolved rules and its attach
// points on the Gateways that were read.
func (b *build) evaluate(object *Route) *routeResult {
	r := &routeResult{ref: object.Ref}
	r.report.Ref = condition.Ref{Kind: r.ref.Kind, Name: r.ref.Name, Generation: object.Generation}
	if object.present != nil {
		r.earlier, r.taken = true, b.resultOf(object.present).assignments
	}
	for i := range object.ParentRefs {
		ref := &object.ParentRefs[i]
		p := b.parentOf(object, ref)
		if p == nil {
			continue
		}
		if r.plan == nil {
			r.plan = b.planOf(object)
			b.resolveRoute(r)
			r.report.Parents = make([]condition.ParentReport, 0, len(object.ParentRefs))
		}
		r.report.Parents = append(r.report.Parents, condition.ParentReport{
			ParentRef:  *ref.DeepCopy(),
			Conditions: b.evaluateParent(r, p, ref),
		})
	}
	if r.plan != nil {
		b.setPlaces(r)
	}
	r.ours = len(r.report.Parents) > 0 || object.HasOurStatus()
	return r
}

// parentOf is the Gateway of ours that a parentRef names, or nil.
func (b *build) parentOf(object *Route, ref *gatewayv1.ParentReference) *gatewayState {
	if ref.Group != nil && *ref.Group != gatewayv1.GroupName || ref.Kind != nil && *ref.Kind != gatewayv1.Kind(condition.Gateway) {
		return nil
	}
	return b.parents[parentName(object.Ref, ref)]
}

// evaluateParent adds the route's attach points at one parent and returns the
// route's conditions towards it. A route with unsupported values still serves its
// hosts: its requests are answered 500.
func (b *build) evaluateParent(r *routeResult, p *gatewayState, ref *gatewayv1.ParentReference) []condition.Condition {
	listeners, accepted := b.listenersFor(r, p, ref)
	if accepted == nil {
		accepted = r.refusal()
		serve := r.plan.problem == ""
		for _, l := range listeners {
			r.attachPoints = append(r.attachPoints, attachPoint{gateway: p.name, listener: l, served: serve, accepted: accepted == nil})
		}
	}
	conditions := make([]condition.Condition, 0, 3)
	if accepted == nil {
		conditions = append(conditions, condition.RouteAccepted())
		if dropped := r.dropped(); len(dropped) > 0 {
			conditions = append(conditions, condition.RoutePartiallyInvalid(dropped))
		}
	} else {
		conditions = append(conditions, *accepted)
	}
	return append(conditions, r.resolved())
}

// listenersFor are the indices of the parent's listeners that a parentRef selects,
// that allow the route and that have a hostname in common with it. If there are
// none, it returns the condition that says why.
func (b *build) listenersFor(r *routeResult, p *gatewayState, ref *gatewayv1.ParentReference) ([]int, *condition.Condition) {
	var selected, allowed int
	var listeners []int
	for i, l := range p.listeners {
		if ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.spec.Name || ref.Port != nil && *ref.Port != l.spec.Port {
			continue
		}
		selected++
		if !l.allows(b.index, p.name.Namespace, r.ref) {
			continue
		}
		allowed++
		if l.shares(r.plan.hosts) {
			listeners = append(listeners, i)
		}
	}
	switch {
	case selected == 0:
		return nil, new(condition.RouteNoMatchingParent(p.name, string(ptr.Deref(ref.SectionName, "")), ptr.Deref(ref.Port, 0)))
	case allowed == 0:
		return nil, new(condition.RouteNotAllowed(p.name, r.ref.Kind, r.ref.Name.Namespace))
	case len(listeners) == 0:
		return nil, new(condition.RouteNoMatchingHostname(p.name, r.plan.hosts))
	default:
		return listeners, nil
	}
}

// shares says whether the listener's hostname overlaps with one of the hosts.
func (l *listener) shares(hosts []string) bool {
	for _, host := range hosts {
		if l.host != "" && intersection(l.host, host) != "" {
			return true
		}
	}
	return false
}

// attach attaches the route to every host that it has in common with the listener.
func (l *listener) attach(r *route) {
	for _, host := range r.plan.hosts {
		if common := intersection(l.host, host); common != "" {
			l.attachments = append(l.attachments, attachment{host: common, route: r})
		}
	}
}

// count counts the route in attachedRoutes. A route counts once, however many of
// its parentRefs select the listener.
func (l *listener) count(r *route) {
	if l.lastCounted != r {
		l.lastCounted = r
		l.attached++
	}
}

// refusal is the condition of a route that matches a listener but is not accepted;
// nil if it is accepted.
func (r *routeResult) refusal() *condition.Condition {
	if r.plan.problem != "" {
		return new(condition.RouteUnsupportedValue(r.plan.problem))
	}
	if dropped := r.dropped(); len(dropped) > 0 && len(dropped) == len(r.plan.rules) {
		if r.plan.rules[0].incompatible {
			return new(condition.RouteIncompatibleFilters(dropped[0]))
		}
		return new(condition.RouteUnsupportedValue(dropped[0]))
	}
	return nil
}

// dropped are the problems of the rules that are not valid.
func (r *routeResult) dropped() []string {
	var problems []string
	for i := range r.plan.rules {
		if problem := r.plan.rules[i].problem; problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems
}
