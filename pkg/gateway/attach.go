package gateway

import (
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// route is a Route on its way through a Build.
type route struct {
	*routeResult
	emitted bool // its assignments are in the Model
}

// routeResult is what a Route came to. Nobody changes it once evaluate returns: a
// Memo may keep it.
type routeResult struct {
	ref          fleet.RouteRef
	plan         *routePlan
	rules        []model.Rule // in the order in which they are tried
	assignments  []model.Assignment
	unresolved   []condition.Condition // what references are wrong, in spec order
	policies     []fleet.ObjectRef     // that act on its backends
	attachPoints []attachPoint
	report       objectReport
	ours         bool // a parent is, or was, a Gateway of ours
}

// attachPoint is a listener that a route attaches to.
type attachPoint struct {
	gateway  fleet.ObjectName
	listener int  // in spec.listeners
	served   bool // it has the route's hosts
	accepted bool // it counts the route
}

// attachment is a route on one host of a listener.
type attachment struct {
	host  string
	route *route
}

// attach attaches a route to the listeners that it may have, and reports on it
// where one of its parents is, or was, a Gateway of ours.
func (b *build) attach(result *routeResult) {
	r := &route{routeResult: result}
	for _, p := range r.attachPoints {
		l := b.parents[p.gateway].listeners[p.listener]
		if p.served {
			l.attach(r)
		}
		if p.accepted {
			l.count(r)
		}
	}
	if r.ours {
		b.reports = append(b.reports, &r.report)
	}
}

// evaluate makes a route's result: what it says, resolved, and where it attaches
// among the Gateways that were read.
func (b *build) evaluate(object *Route) *routeResult {
	r := &routeResult{ref: object.Ref}
	r.report.Ref = condition.Ref{Kind: r.ref.Kind, Name: r.ref.Name, Generation: object.Generation}
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
			ParentRef:  copyParentRef(ref),
			Conditions: b.judgeParent(r, p, ref),
		})
	}
	r.ours = len(r.report.Parents) > 0 || object.HasOurStatus()
	return r
}

func (b *build) parentOf(object *Route, ref *gatewayv1.ParentReference) *gatewayState {
	if ref.Group != nil && *ref.Group != gatewayv1.GroupName || ref.Kind != nil && *ref.Kind != gatewayv1.Kind(condition.Gateway) {
		return nil
	}
	name := fleet.ObjectName{Namespace: object.Ref.Name.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil && *ref.Namespace != "" {
		name.Namespace = string(*ref.Namespace)
	}
	return b.parents[name]
}

// judgeParent finds the route's attachPoints at one parent and says how that went. A
// route that is attached but invalid is answered 500, so it keeps its hosts.
func (b *build) judgeParent(r *routeResult, p *gatewayState, ref *gatewayv1.ParentReference) []condition.Condition {
	listeners, accepted := b.listenersFor(r, p, ref)
	if accepted == nil {
		accepted = r.refusal(b.index.nacks)
		serve := accepted == nil || accepted.Reason == string(gatewayv1.RouteReasonUnsupportedValue) && r.plan.fault == ""
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

// listenersFor are the indices of those of a parent that a parentRef selects, that let the
// route in and have a hostname in common with it; or what is in the way.
func (b *build) listenersFor(r *routeResult, p *gatewayState, ref *gatewayv1.ParentReference) ([]int, *condition.Condition) {
	var selected, found int
	var listeners []int
	for i, l := range p.listeners {
		if ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.spec.Name || ref.Port != nil && *ref.Port != l.spec.Port {
			continue
		}
		selected++
		if !l.allows(b.index, p.name.Namespace, r.ref) {
			continue
		}
		found++
		if l.shares(r.plan.hosts) {
			listeners = append(listeners, i)
		}
	}
	switch {
	case selected == 0:
		return nil, new(condition.RouteNoMatchingParent(p.name, string(ptr.Deref(ref.SectionName, "")), ptr.Deref(ref.Port, 0)))
	case found == 0:
		return nil, new(condition.RouteNotAllowed(p.name, r.ref.Kind, r.ref.Name.Namespace))
	case len(listeners) == 0:
		return nil, new(condition.RouteNoMatchingHostname(p.name, r.plan.hosts))
	default:
		return listeners, nil
	}
}

func (l *listener) shares(hosts []string) bool {
	for _, host := range hosts {
		if l.host != "" && intersection(l.host, host) != "" {
			return true
		}
	}
	return false
}

// attach puts the route on every host that it has in common with the listener.
func (l *listener) attach(r *route) {
	for _, host := range r.plan.hosts {
		if common := intersection(l.host, host); common != "" {
			l.attachments = append(l.attachments, attachment{host: common, route: r})
		}
	}
}

// count counts the route, once.
func (l *listener) count(r *route) {
	if l.lastCounted != r {
		l.lastCounted = r
		l.attached++
	}
}

// refusal says why a route that could be attached is not accepted, or nil.
func (r *routeResult) refusal(nacks map[condition.Ref]string) *condition.Condition {
	if message, refused := nacks[r.report.Ref]; refused {
		return new(condition.RouteRefusedByEdge(message))
	}
	if r.plan.fault != "" {
		return new(condition.RouteUnsupportedValue(r.plan.fault))
	}
	if dropped := r.dropped(); len(dropped) > 0 && len(dropped) == len(r.plan.rules) {
		return new(condition.RouteUnsupportedValue(dropped[0]))
	}
	return nil
}

// dropped says what is wrong with each rule that is not valid.
func (r *routeResult) dropped() []string {
	var faults []string
	for i := range r.plan.rules {
		if fault := r.plan.rules[i].fault; fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}

func copyParentRef(ref *gatewayv1.ParentReference) condition.ParentRef {
	port := (*int32)(nil)
	if ref.Port != nil {
		port = new(*ref.Port)
	}
	return condition.ParentRef{
		Group: copyString(ref.Group), Kind: copyString(ref.Kind), Namespace: copyString(ref.Namespace),
		Name: string(ref.Name), SectionName: copyString(ref.SectionName), Port: port,
	}
}

func copyString[S ~string](p *S) *string {
	if p == nil {
		return nil
	}
	return new(string(*p))
}
