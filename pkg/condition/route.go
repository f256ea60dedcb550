package condition

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// RouteAccepted says that a route is attached to its parent.
func RouteAccepted() Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, true, gatewayv1.RouteReasonAccepted, "the route is attached")
}

// RouteNoMatchingParent says that no listener matches a parentRef.
func RouteNoMatchingParent(gateway fleet.ObjectName, section string, port int32) Condition {
	wanted := make([]string, 0, 2)
	if section != "" {
		wanted = append(wanted, fmt.Sprintf("named %q", section))
	}
	if port != 0 {
		wanted = append(wanted, fmt.Sprintf("on port %d", port))
	}
	return newCondition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonNoMatchingParent,
		fmt.Sprintf("Gateway %q has no listener %s; correct sectionName and port of the parentRef", gateway, strings.Join(wanted, " ")))
}

// RouteNotAllowed says that no listener allows the route.
func RouteNotAllowed(gateway fleet.ObjectName, kind Kind, namespace string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonNotAllowedByListeners,
		fmt.Sprintf("no listener of Gateway %q that the parentRef selects allows %ss of namespace %q; ask its owner to change allowedRoutes", gateway, kind, namespace))
}

// RouteNoMatchingHostname says that route and listeners have no hostname in common.
func RouteNoMatchingHostname(gateway fleet.ObjectName, hostnames []string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonNoMatchingListenerHostname,
		fmt.Sprintf("hostnames %s are none that the listeners of Gateway %q serve; change them, or attach to another listener", quoted(hostnames), gateway))
}

// RouteUnsupportedValue has the problem that makes a whole route invalid.
func RouteUnsupportedValue(problem string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonUnsupportedValue, problem)
}

// RouteIncompatibleFilters has the filters that exclude each other.
func RouteIncompatibleFilters(problem string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonIncompatibleFilters, problem)
}

// OverBudget is the reason for a route that asks for more than a budget allows.
const OverBudget = "OverBudget"

// RouteOverBudget says that a route alone costs each edge too much.
func RouteOverBudget(gateway fleet.ObjectName, costs, whose string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, OverBudget,
		fmt.Sprintf("the route would cost each edge of Gateway %q more than the budget of %s: %s; use fewer or simpler matches, hostnames, filters and regular expressions, or ask for a larger budget (GatewayParameters of its class)",
			gateway, whose, costs))
}

// RouteRegexOverBudget says that a regular expression is too large.
func RouteRegexOverBudget(place string, steps, limit int, gateway fleet.ObjectName) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, OverBudget,
		fmt.Sprintf("%s has a regular expression of about %d steps, and Gateway %q allows %d; repeat less, or use fewer classes", place, steps, gateway, limit))
}

// RouteNoRoom says that the routes that were accepted before leave too little of a
// budget for a route.
func RouteNoRoom(gateway fleet.ObjectName, costs, whose, used string) Condition {
	return newCondition(gatewayv1.RouteConditionAccepted, false, OverBudget,
		fmt.Sprintf("the route would cost each edge %s, and the budget of Gateway %q for %s has no room for it: the routes that were accepted before take %s; make the route smaller, delete others, or ask for a larger budget (GatewayParameters of its class)",
			costs, gateway, whose, used))
}

// RouteKept says that a generation of a route is over budget, and that the one which
// was accepted before is served.
func RouteKept(generation, served int64, over Condition) Condition {
	return newCondition(gatewayv1.RouteConditionPartiallyInvalid, true, OverBudget,
		fmt.Sprintf(fallBack+" generation %d of the route is served, because generation %d has no room: %s", served, generation, over.Message))
}

// RoutePartiallyInvalid has the problems of the rules that are dropped (GEP-1364:
// the message begins with "Dropped Rule").
func RoutePartiallyInvalid(problems []string) Condition {
	return newCondition(gatewayv1.RouteConditionPartiallyInvalid, true, gatewayv1.RouteReasonUnsupportedValue,
		"Dropped Rule: "+strings.Join(problems, "; ")+"; what their other matches meet is answered 500")
}

// Shadowed is a condition type on a route's parent. It is set only when True.
const Shadowed = "Shadowed"

// RouteShadowed says that a match never applies, because a route with precedence
// (it is older, or first by name) has the same match on the same host.
func RouteShadowed(match string, by fleet.RouteRef, more int) Condition {
	return newCondition(Shadowed, true, "SameMatch",
		fmt.Sprintf("%s never applies: %s %q has the same match and comes first; change one of them%s", match, by.Kind, by.Name, others(more)))
}

// RouteTakenOver says that a match of a route of another namespace comes first and
// takes requests from a match.
func RouteTakenOver(match string, by fleet.RouteRef, other string, more int) Condition {
	return newCondition(Shadowed, true, "TakenOver",
		fmt.Sprintf("%s loses requests to %s of %s %q, which comes first and matches some of the same requests; change one of them, or ask for a listener and a hostname of your own%s",
			match, other, by.Kind, by.Name, others(more)))
}

// RouteNotCompared says that a match may lose requests: the regular expressions of the
// other route's namespace are too many to look at all.
func RouteNotCompared(match string, by fleet.RouteRef, other string, more int) Condition {
	return newCondition(Shadowed, true, "NotCompared",
		fmt.Sprintf("%s may lose requests to %s of %s %q, which comes first: the regular expressions of namespace %q on this hostname are too many to compare; ask for fewer, or for a listener and a hostname of your own%s",
			match, other, by.Kind, by.Name, by.Name.Namespace, others(more)))
}

// Shadows is a condition type on a route's parent. It is set only when True.
const Shadows = "Shadows"

// RouteTakesOver says that a match takes requests from a route of another
// namespace.
func RouteTakesOver(match string, from fleet.RouteRef, other string, more int) Condition {
	return newCondition(Shadows, true, "TakesOver",
		fmt.Sprintf("%s comes first and takes requests from %s of %s %q, of another namespace; make the match narrower if that is not meant%s",
			match, other, from.Kind, from.Name, others(more)))
}

func others(more int) string {
	if more == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", more)
}

// NarrowHostname is a condition type on a route's parent. It is set only when True.
const NarrowHostname = "NarrowHostname"

// RouteNarrowHostname says that a route does not serve what no rule of a narrower
// hostname matches, because its rules have no room there.
func RouteNarrowHostname(host string, more int) Condition {
	return newCondition(NarrowHostname, true, OverBudget,
		fmt.Sprintf("this route does not serve requests for host %q%s that no rule of it matches: the budgets of the namespaces of its routes and of the Gateway leave no room for these rules; use fewer rules on wider hostnames, or ask for a larger budget (GatewayParameters)",
			host, others(more)))
}

// RouteResolved says that every backend of a route can be used.
func RouteResolved() Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, true, gatewayv1.RouteReasonResolvedRefs, "all references are resolved")
}

// BackendNotFound says that a ServiceImport or a Service does not exist.
func BackendNotFound(backend fleet.Backend) Condition {
	todo := fmt.Sprintf("create it in namespace %q of the hub's cluster, or name a ServiceImport", backend.Name.Namespace)
	if backend.Kind == fleet.Import {
		todo = fmt.Sprintf("export Service %q from at least one cluster", backend.Name.Name)
	}
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("%s %q does not exist; %s", backend.Kind, backend.Name, todo))
}

// BackendNotOfFleet says that a ServiceImport exists that Crossway did not make,
// and that no cluster of the fleet exports its Service.
func BackendNotOfFleet(name fleet.ServiceName) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("ServiceImport %q was not made by Crossway: no cluster of the fleet exports Service %q; export it from at least one cluster", name, name.Name))
}

// BackendPortNotFound says that a backend does not have the port, and which it has.
func BackendPortNotFound(backend fleet.Backend, port int32, offered []int32) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("%s %q has no TCP port %d; it has %s", backend.Kind, backend.Name, port, portList(offered)))
}

// BackendPortMissing says that a backendRef must name one of several ports.
func BackendPortMissing(backend fleet.Backend, offered []int32) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("the reference to %s %q needs a port; it has %s", backend.Kind, backend.Name, portList(offered)))
}

// BackendExternalName says that a Service is of type ExternalName.
func BackendExternalName(name fleet.ServiceName) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("Service %q is of type ExternalName and has no endpoints; name a Service with endpoints", name))
}

// BackendOfMembers says that a Service is in a namespace that is reserved for what
// member clusters push.
func BackendOfMembers(name fleet.ServiceName, prefix string) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonBackendNotFound,
		fmt.Sprintf("Service %q cannot be used: namespaces %s* are for what member clusters push, so endpoints there are never the hub's own; move the Service",
			name, prefix))
}

// BackendNotPermitted says which ReferenceGrant is missing.
func BackendNotPermitted(backend fleet.Backend, kind Kind, namespace string) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonRefNotPermitted,
		fmt.Sprintf("%s %q is in another namespace; add a ReferenceGrant in namespace %q from %ss of namespace %q to it",
			backend.Kind, backend.Name, backend.Name.Namespace, kind, namespace))
}

// BackendInvalidKind says which kinds a backendRef may name.
func BackendInvalidKind(group, kind, name string) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonInvalidKind,
		fmt.Sprintf("backend %q is of kind %q, group %q; use ServiceImport of group multicluster.x-k8s.io, or Service", name, kind, group))
}

// BackendUnsupportedProtocol says that a port's appProtocol is not supported, and
// which are.
func BackendUnsupportedProtocol(backend fleet.Backend, port int32, appProtocol string) Condition {
	return newCondition(gatewayv1.RouteConditionResolvedRefs, false, gatewayv1.RouteReasonUnsupportedProtocol,
		fmt.Sprintf("port %d of %s %q has appProtocol %q, which is not supported; use http, kubernetes.io/h2c or kubernetes.io/ws, or leave it out",
			port, backend.Kind, backend.Name, appProtocol))
}

func portList(ports []int32) string {
	if len(ports) == 0 {
		return "none"
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ports), "[]"), " ", ", ")
}
