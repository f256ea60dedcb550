package gateway

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// routePlan is what a route says by itself, before any reference is resolved.
// It is a function of the route alone, so a Memo may keep it.
type routePlan struct {
	hosts []string // as in the Model; "*" alone where the route names none
	fault string   // makes the whole route invalid
	rules []rulePlan
}

// rulePlan is one rule of a route.
type rulePlan struct {
	fault    string     // the rule has a value that is refused; its matches answer 500
	base     model.Rule // all but Origin.Match, Match, Forward, Respond and Mirrors
	matches  []matchPlan
	backends []backendPlan
	mirrors  []mirrorPlan
}

type matchPlan struct {
	index int // in spec.rules[].matches
	match model.Match
}

type backendPlan struct {
	ref      reference
	weight   uint32
	request  model.HeaderChanges
	response model.HeaderChanges
}

// own says whether the backend needs a Target for itself.
func (b *backendPlan) own() bool { return !empty(b.request) || !empty(b.response) }

type mirrorPlan struct {
	ref                    reference
	numerator, denominator uint32
}

// reference is a backendRef with its defaults filled in.
type reference struct {
	group, kind string
	name        fleet.ObjectName
	port        int32 // 0: none given
}

func (r reference) backend() (fleet.Backend, bool) {
	switch {
	case r.group == "" && r.kind == string(fleet.Service):
		return fleet.Backend{Kind: fleet.Service, Name: r.name}, true
	case r.group == mcsv1beta1.GroupName && r.kind == string(fleet.Import):
		return fleet.Backend{Kind: fleet.Import, Name: r.name}, true
	default:
		return fleet.Backend{}, false
	}
}

func empty(c model.HeaderChanges) bool { return len(c.Set)+len(c.Add)+len(c.Remove) == 0 }

func value[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

func planRoute(route *gatewayv1.HTTPRoute) *routePlan {
	plan := &routePlan{hosts: []string{anyHost}}
	if len(route.Spec.Hostnames) > 0 {
		plan.hosts = make([]string, 0, len(route.Spec.Hostnames))
	}
	for _, given := range route.Spec.Hostnames {
		host := strings.ToLower(string(given))
		if !validHostname(host) {
			plan.fault = fmt.Sprintf("spec.hostnames: %q is not a hostname; use a DNS name like shop.example.com or *.example.com", shortened(string(given)))
		}
		plan.hosts = append(plan.hosts, host)
	}
	if scope := route.Spec.UseDefaultGateways; scope != "" && scope != gatewayv1.GatewayDefaultScopeNone {
		plan.fault = "spec.useDefaultGateways is not supported; name the Gateway in parentRefs"
	}
	plan.rules = make([]rulePlan, len(route.Spec.Rules))
	for i := range route.Spec.Rules {
		plan.rules[i] = planRule(route, i)
	}
	return plan
}

// planRule reads one rule. The first thing that is wrong with it is its fault.
func planRule(route *gatewayv1.HTTPRoute, index int) rulePlan {
	rule := &route.Spec.Rules[index]
	plan := rulePlan{}
	plan.base.Origin = model.Origin{
		Route:      fleet.ObjectName{Namespace: route.Namespace, Name: route.Name},
		Generation: route.Generation, Rule: index, Name: string(value(rule.Name)),
	}
	var matchFault string
	plan.matches, matchFault = planMatches(rule.Matches)
	plan.fault = cmp.Or(
		matchFault,
		planTimeouts(rule.Timeouts, &plan.base),
		unsupportedField(rule),
		planFilters(route.Namespace, rule, &plan),
		planBackends(route.Namespace, rule, &plan),
	)
	if plan.fault != "" {
		place := fmt.Sprintf("rules[%d]", index)
		if plan.base.Origin.Name != "" {
			place += fmt.Sprintf(" (%s)", plan.base.Origin.Name)
		}
		plan.fault = place + ": " + plan.fault
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

func planTimeouts(timeouts *gatewayv1.HTTPRouteTimeouts, rule *model.Rule) (fault string) {
	if timeouts == nil {
		return ""
	}
	if rule.Timeout, fault = duration("timeouts.request", timeouts.Request); fault != "" {
		return fault
	}
	if rule.BackendTimeout, fault = duration("timeouts.backendRequest", timeouts.BackendRequest); fault != "" {
		return fault
	}
	if whole, each := value(rule.Timeout), value(rule.BackendTimeout); whole > 0 && each > whole {
		return fmt.Sprintf("timeouts.backendRequest %s is longer than timeouts.request %s; make it shorter", each, whole)
	}
	return ""
}

func duration(field string, given *gatewayv1.Duration) (*time.Duration, string) {
	if given == nil {
		return nil, ""
	}
	parsed, err := time.ParseDuration(string(*given))
	if err != nil || parsed < 0 {
		return nil, fmt.Sprintf("%s: %q is not a duration; use one like 10s (GEP-2257)", field, shortened(string(*given)))
	}
	return &parsed, ""
}

// maxWeight is the API server's limit for a backendRef's weight. Sixteen of
// them stay far below the 2^32 that Envoy takes for a sum.
const maxWeight = 1_000_000

func planBackends(namespace string, rule *gatewayv1.HTTPRouteRule, plan *rulePlan) string {
	if plan.base.Redirect != nil && len(rule.BackendRefs) > 0 {
		return "filter RequestRedirect and backendRefs cannot be combined; remove one"
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
		if fault := planBackendFilters(ref.Filters, &backend); fault != "" {
			return fmt.Sprintf("backendRefs[%d]: %s", i, fault)
		}
		plan.backends = append(plan.backends, backend)
	}
	return ""
}

func referenceTo(namespace string, ref *gatewayv1.BackendObjectReference) reference {
	r := reference{kind: string(fleet.Service), name: fleet.ObjectName{Namespace: namespace, Name: string(ref.Name)}}
	if ref.Group != nil {
		r.group = string(*ref.Group)
	}
	if ref.Kind != nil {
		r.kind = string(*ref.Kind)
	}
	if ref.Namespace != nil && *ref.Namespace != "" {
		r.name.Namespace = string(*ref.Namespace)
	}
	if ref.Port != nil {
		r.port = *ref.Port
	}
	return r
}
