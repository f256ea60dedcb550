package gateway

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Refusal says that the edges of an EdgePool refuse one generation of a route
// (NACK). They get a Model of their own, made with InsteadOf.
type Refusal struct {
	Ref condition.Ref // the route, at the refused generation
	condition.PoolRefusal
}

// InsteadOf is an earlier version of a route, for an Input in which it takes the
// place of the present one. It attaches and resolves in the present world. An
// assignment of it has the key of one of the present version only if both are
// equal, so that the two Models can be served at the same time.
func InsteadOf(present, earlier *Route) *Route {
	route := *earlier
	route.present = present
	return &route
}

// reportRefusals completes the reports on the routes that edges refuse. A refusal
// counts towards the parents that have an address in its pool.
func (r *Result) reportRefusals(reports []condition.Report, refusals []Refusal) {
	byRoute := map[fleet.RouteRef][]Refusal{}
	for _, refusal := range refusals {
		byRoute[refusal.Ref.Object()] = append(byRoute[refusal.Ref.Object()], refusal)
	}
	if len(byRoute) == 0 {
		return
	}
	addresses := map[fleet.ObjectName][]model.Address{}
	for _, o := range r.reports {
		if o.gateway != nil {
			addresses[o.gateway.name] = o.gateway.addresses
		}
	}
	for i := range reports {
		report := &reports[i]
		refused := slices.DeleteFunc(byRoute[report.Ref.Object()], func(f Refusal) bool { return f.Ref != report.Ref })
		if len(refused) == 0 {
			continue
		}
		report.Parents = slices.Clone(report.Parents)
		for j := range report.Parents {
			parent := &report.Parents[j]
			parent.Conditions = refusedConditions(report.Ref.Generation, parent.Conditions, addresses[parentName(report.Ref.Object(), &parent.ParentRef)], refused)
		}
	}
}

// refusedConditions are the conditions of a route towards a Gateway with these
// addresses.
func refusedConditions(generation int64, conditions []condition.Condition, addresses []model.Address, refusals []Refusal) []condition.Condition {
	if conditions[0].Status != "True" {
		return conditions
	}
	var refused []condition.PoolRefusal
	served := int64(0) // the oldest generation that is served instead
	for _, f := range refusals {
		if !slices.ContainsFunc(addresses, func(a model.Address) bool { return a.Pool == f.Pool }) {
			continue
		}
		refused = append(refused, f.PoolRefusal)
		if f.Instead > 0 && (served == 0 || f.Instead < served) {
			served = f.Instead
		}
	}
	switch {
	case len(refused) == 0:
		return conditions
	case len(refused) < len(addresses):
		return append(slices.Clip(conditions), condition.RouteRefusedInPools(generation, refused))
	}
	conditions = slices.DeleteFunc(slices.Clone(conditions), func(c condition.Condition) bool { // about the refused generation
		return c.Type == string(gatewayv1.RouteConditionPartiallyInvalid)
	})
	if served == 0 {
		conditions[0] = condition.RouteRefusedByEdge(refused)
		return conditions
	}
	conditions[0] = condition.RouteAcceptedEarlier(served)
	return append(conditions, condition.RouteFellBack(generation, refused))
}
