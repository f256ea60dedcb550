package gateway

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// pingKind is a kind of route that only tests have. A rule of it takes GET /ping.
const pingKind fleet.Kind = "PingRoute"

// pingRoute is its adapter. Its objects have the type of GRPCRoutes.
type pingRoute struct{ *gatewayv1.GRPCRoute }

func fromPingRoute(o *gatewayv1.GRPCRoute) *Route {
	return newRoute(pingKind, o, o.Spec.ParentRefs, o.Status.RouteStatus, pingRoute{o})
}

func (route pingRoute) plan() *routePlan {
	plan := &routePlan{hosts: []string{anyHost}}
	for i := range route.Spec.Rules {
		rule := rulePlan{
			base:    model.Rule{Origin: model.Origin{Route: fromPingRoute(route.GRPCRoute).Ref, Generation: route.Generation, Rule: i}},
			matches: []matchPlan{{match: model.Match{Method: "GET", Path: model.PathMatch{Kind: model.PathExact, Value: "/ping"}}}},
		}
		for j := range route.Spec.Rules[i].BackendRefs {
			ref := referenceTo(route.Namespace, &route.Spec.Rules[i].BackendRefs[j].BackendObjectReference)
			rule.backends = append(rule.backends, backendPlan{ref: ref, weight: 1})
		}
		plan.rules = append(plan.rules, rule)
	}
	return plan
}
