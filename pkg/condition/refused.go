package condition

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// RefusedByEdge is the reason for an object whose configuration an edge refused
// (NACK), although the hub found it valid.
const RefusedByEdge = "RefusedByEdge"

// PoolRefusal says that the edges of an EdgePool refuse the present generation of
// a route.
type PoolRefusal struct {
	Pool    string
	Instead int64  // the generation that they serve instead; 0: none
	Message string // Envoy's; empty: it may quote other routes
}

// RouteRefusedByEdge says that the edges of all EdgePools of a parent refuse a
// route, and have no earlier generation of it.
func RouteRefusedByEdge(refusals []PoolRefusal) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, RefusedByEdge,
		"the edges refused this generation of the route, which is left out until it changes: "+messageOf(refusals))
}

// RouteAcceptedEarlier says that a route is attached to its parent at an earlier
// generation.
func RouteAcceptedEarlier(generation int64) Condition {
	c := newCondition(gatewayv1.RouteConditionAccepted, true, gatewayv1.RouteReasonAccepted, fmt.Sprintf("generation %d of the route is attached", generation))
	c.Generation = generation
	return c
}

// fallBack is how the message of a condition begins that says that an earlier
// generation is served (apis/v1 RouteConditionPartiallyInvalid).
const fallBack = "Fall Back:"

// RouteFellBack says that the edges of all EdgePools of a parent refuse a route and
// serve an earlier generation.
func RouteFellBack(generation int64, refusals []PoolRefusal) Condition {
	return newCondition(gatewayv1.RouteConditionPartiallyInvalid, true, gatewayv1.RouteReasonUnsupportedValue,
		fmt.Sprintf(fallBack+" the edges refused generation %d of the route; %s; change the route: %s", generation, servedInstead(refusals), messageOf(refusals)))
}

// IsFellBack says whether a condition is RouteFellBack.
func IsFellBack(c metav1.Condition) bool {
	return c.Type == string(gatewayv1.RouteConditionPartiallyInvalid) && c.Reason == string(gatewayv1.RouteReasonUnsupportedValue) &&
		strings.HasPrefix(c.Message, fallBack)
}

// RefusedInPools is a condition type on a route's parent. It is set only when True.
const RefusedInPools = "RefusedInPools"

// RouteRefusedInPools says which EdgePools of a parent refuse a route. The others
// serve it.
func RouteRefusedInPools(generation int64, refusals []PoolRefusal) Condition {
	return newCondition(RefusedInPools, true, RefusedByEdge,
		fmt.Sprintf("some edges refused generation %d of the route; %s; upgrade these Envoys, or change the route: %s", generation, servedInstead(refusals), messageOf(refusals)))
}

// servedInstead says what the pools serve.
func servedInstead(refusals []PoolRefusal) string {
	parts := make([]string, len(refusals))
	for i, r := range refusals {
		parts[i] = fmt.Sprintf("EdgePool %q leaves it out", r.Pool)
		if r.Instead > 0 {
			parts[i] = fmt.Sprintf("EdgePool %q serves generation %d", r.Pool, r.Instead)
		}
	}
	return strings.Join(parts, ", ")
}

// messageOf is Envoy's message, or where to find them. An Envoy may quote any route of
// the listener, so they are not always for the owner of this one.
func messageOf(refusals []PoolRefusal) string {
	for _, r := range refusals {
		if r.Message != "" {
			return r.Message
		}
	}
	return "Envoy's message may quote routes of others and is in the hub's log"
}

// GatewayRefusedByEdge says that the edges of all EdgePools of a Gateway refuse a
// part of it. Edges keep the last listener that they accepted.
func GatewayRefusedByEdge(pools []string, message string) Condition {
	return newCondition(gatewayv1.GatewayConditionProgrammed, false, RefusedByEdge,
		fmt.Sprintf("the edges of EdgePools %s refused this generation and keep the one before: %s", quoted(pools), messageOf([]PoolRefusal{{Message: message}})))
}

// EdgePoolConfigurationType says whether the edges of a pool take all that they
// are sent.
const EdgePoolConfigurationType = "ConfigurationAccepted"

// EdgePoolConfigurationAccepted says that all connected edges take what they are
// sent.
func EdgePoolConfigurationAccepted() Condition {
	return newCondition(EdgePoolConfigurationType, true, "Accepted", "the connected edges take all that they are sent")
}

// EdgeRefusal is what one edge refuses.
type EdgeRefusal struct {
	Node      string
	Routes    []fleet.RouteRef // it serves earlier generations of them, or none
	Resources []string         // it keeps what it has of them
}

// Limits of what EdgePoolConfigurationRefused lists: edges choose their names and
// what they refuse.
const maxListedEdges, maxListedObjects, maxNodeLength = 8, 5, 64

// EdgePoolConfigurationRefused names the edges that refuse something.
func EdgePoolConfigurationRefused(refusals []EdgeRefusal) Condition {
	var parts []string
	for _, r := range refusals[:min(len(refusals), maxListedEdges)] {
		var objects []string
		for _, route := range r.Routes {
			objects = append(objects, route.String())
		}
		objects = append(objects, r.Resources...)
		parts = append(parts, fmt.Sprintf("edge %q refuses %s", Shortened(r.Node, maxNodeLength), listed(objects)))
	}
	if more := len(refusals) - maxListedEdges; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more edges", more))
	}
	return newCondition(EdgePoolConfigurationType, false, "RejectedByEdge",
		strings.Join(parts, "; ")+"; each keeps the last that it accepted of these: upgrade the Envoys, Envoy's message is in the hub's log")
}

func listed(objects []string) string {
	if more := len(objects) - maxListedObjects; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(objects[:maxListedObjects], ", "), more)
	}
	return strings.Join(objects, ", ")
}
