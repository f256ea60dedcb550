package gateway

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// httpRoute is the routeSource of HTTPRoutes.
type httpRoute struct{ *gatewayv1.HTTPRoute }

// FromHTTPRoute makes a Route of an HTTPRoute.
func FromHTTPRoute(o *gatewayv1.HTTPRoute) *Route {
	return newRoute(condition.HTTPRoute, o, o.Spec.ParentRefs, o.Status.RouteStatus, httpRoute{o})
}

func (route httpRoute) plan() *routePlan {
	plan := &routePlan{hosts: []string{anyHost}}
	if len(route.Spec.Hostnames) > 0 {
		plan.hosts = make([]string, 0, len(route.Spec.Hostnames))
	}
	for _, given := range route.Spec.Hostnames {
		host := strings.ToLower(string(given))
		if !validHostname(host) {
			plan.problem = fmt.Sprintf("spec.hostnames: %q is not a hostname; use a DNS name like shop.example.com or *.example.com", shortened(string(given)))
		}
		plan.hosts = append(plan.hosts, host)
	}
	if scope := route.Spec.UseDefaultGateways; scope != "" && scope != gatewayv1.GatewayDefaultScopeNone {
		plan.problem = "spec.useDefaultGateways is not supported; name the Gateway in parentRefs"
	}
	plan.rules = make([]rulePlan, len(route.Spec.Rules))
	regexes := &regexes{}
	for i := range route.Spec.Rules {
		plan.rules[i] = planRule(route.HTTPRoute, i, regexes)
	}
	plan.regexes = regexes.costs
	return plan
}

// planRule reads one rule, with the first problem that it has.
func planRule(route *gatewayv1.HTTPRoute, index int, regexes *regexes) rulePlan {
	rule := &route.Spec.Rules[index]
	plan := rulePlan{}
	plan.base.Origin = model.Origin{
		Route:      fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: route.Namespace, Name: route.Name}},
		Generation: route.Generation, Rule: index, Name: string(ptr.Deref(rule.Name, "")),
	}
	var matchProblem string
	regexes.steps = 0
	plan.matches, matchProblem = planMatches(rule.Matches, regexes)
	plan.regexSteps = regexes.steps
	plan.problem = cmp.Or(
		matchProblem,
		planTimeouts(rule.Timeouts, &plan.base),
		unsupportedField(rule),
		planFilters(route.Namespace, rule, &plan),
		planBackends(route.Namespace, rule, &plan),
	)
	if plan.problem != "" {
		place := fmt.Sprintf("rules[%d]", index)
		if plan.base.Origin.Name != "" {
			place += fmt.Sprintf(" (%s)", plan.base.Origin.Name)
		}
		plan.problem = place + ": " + plan.problem
	}
	return plan
}

func unsupportedField(rule *gatewayv1.HTTPRouteRule) string {
	switch {
	case rule.Retry != nil:
		return "retry is not supported; edges retry what is safe to repeat by themselves: remove it"
	case rule.SessionPersistence != nil:
		return "sessionPersistence is not supported; remove it"
	default:
		return ""
	}
}

func planTimeouts(timeouts *gatewayv1.HTTPRouteTimeouts, rule *model.Rule) (problem string) {
	if timeouts == nil {
		return ""
	}
	if rule.Timeout, problem = timeout("timeouts.request", timeouts.Request); problem != "" {
		return problem
	}
	if rule.BackendTimeout, problem = timeout("timeouts.backendRequest", timeouts.BackendRequest); problem != "" {
		return problem
	}
	if whole, each := ptr.Deref(rule.Timeout, 0), ptr.Deref(rule.BackendTimeout, 0); whole > 0 && each > whole {
		return fmt.Sprintf("timeouts.backendRequest %s is longer than timeouts.request %s; make it shorter", each, whole)
	}
	return ""
}

// maxWeight is the API server's limit for a backendRef's weight. The sum of
// sixteen of them stays far below 2^32, Envoy's limit for the sum.
const maxWeight = 1_000_000

func planBackends(namespace string, rule *gatewayv1.HTTPRouteRule, plan *rulePlan) string {
	if plan.base.Redirect != nil && len(rule.BackendRefs) > 0 {
		plan.incompatible = true
		return "filter RequestRedirect and backendRefs exclude each other, because a redirect forwards nothing; remove one"
	}
	plan.backends = make([]backendPlan, 0, len(rule.BackendRefs))
	sum := uint64(0)
	for i := range rule.BackendRefs {
		ref := &rule.BackendRefs[i]
		weight := int32(1)
		if ref.Weight != nil {
			weight = *ref.Weight
		}
		if weight < 0 || weight > maxWeight {
			return fmt.Sprintf("backendRefs[%d]: weight %d is not within 0 and %d", i, weight, maxWeight)
		}
		if sum += uint64(weight); sum > 1<<32-1 {
			return "the sum of all weights is more than 4294967295; make them smaller"
		}
		backend := backendPlan{ref: referenceTo(namespace, &ref.BackendObjectReference), weight: uint32(weight)}
		if problem := planBackendFilters(ref.Filters, &backend); problem != "" {
			return fmt.Sprintf("backendRefs[%d]: %s", i, problem)
		}
		plan.backends = append(plan.backends, backend)
	}
	return ""
}
