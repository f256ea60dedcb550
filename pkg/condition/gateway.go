package condition

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// ClassAccepted says that Gateways of the class are served.
func ClassAccepted() Condition {
	return newCondition(gatewayv1.GatewayClassConditionStatusAccepted, true, gatewayv1.GatewayClassReasonAccepted,
		"Gateways of this class are served by Crossway")
}

// ClassInvalidParameters has the problem with a class's parametersRef.
func ClassInvalidParameters(problem string) Condition {
	return newCondition(gatewayv1.GatewayClassConditionStatusAccepted, false, gatewayv1.GatewayClassReasonInvalidParameters, problem)
}

// ClassSupportedVersion says that Crossway supports the installed Gateway API.
func ClassSupportedVersion(installed string) Condition {
	return newCondition(gatewayv1.GatewayClassConditionStatusSupportedVersion, true, gatewayv1.GatewayClassReasonSupportedVersion,
		fmt.Sprintf("Gateway API %s is supported", installed))
}

// ClassUnsupportedVersion says which Gateway API is installed and which is supported.
func ClassUnsupportedVersion(installed, wanted string) Condition {
	return newCondition(gatewayv1.GatewayClassConditionStatusSupportedVersion, false, gatewayv1.GatewayClassReasonUnsupportedVersion,
		fmt.Sprintf("the installed Gateway API CRDs are %s; Crossway is made for %s: install these", installed, wanted))
}

// GatewayAccepted says that a Gateway is valid. Notes name fields without effect.
func GatewayAccepted(notes ...string) Condition {
	message := "the Gateway is valid"
	if len(notes) > 0 {
		message += "; " + strings.Join(notes, "; ")
	}
	return newCondition(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, message)
}

// GatewayListenersNotValid names the invalid listeners. The Gateway is accepted if
// at least one listener is valid.
func GatewayListenersNotValid(invalid, valid []string) Condition {
	message := fmt.Sprintf("listeners %s are not valid, see their own conditions; no listener is left", quoted(invalid))
	if len(valid) > 0 {
		message = fmt.Sprintf("listeners %s are not valid, see their own conditions; accepted: %s", quoted(invalid), quoted(valid))
	}
	return newCondition(gatewayv1.GatewayConditionAccepted, len(valid) > 0, gatewayv1.GatewayReasonListenersNotValid, message)
}

// GatewayInvalidParameters has the problem with the parameters of a Gateway or its class.
func GatewayInvalidParameters(problem string) Condition {
	return newCondition(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalidParameters, problem)
}

// GatewayUnsupportedAddress says that spec.addresses requests a specific address.
func GatewayUnsupportedAddress(kind, value string) Condition {
	return newCondition(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonUnsupportedAddress,
		fmt.Sprintf("spec.addresses asks for %s %q, but addresses come from the EdgePools; remove it, or ask for type IPAddress without a value", kind, value))
}

// GatewayUnsupported names a field of a Gateway that is not supported.
func GatewayUnsupported(field string) Condition {
	return newCondition(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalid,
		fmt.Sprintf("%s is not supported; remove it", field))
}

// GatewayClassMissing says that the Gateway's class was deleted and the Gateway
// is no longer served.
func GatewayClassMissing(class string) Condition {
	return newCondition(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalid,
		fmt.Sprintf("GatewayClass %q does not exist any more; create it, or correct spec.gatewayClassName", class))
}

// GatewayProgrammed says that every connected edge serves this generation. Of the
// Gateway's EdgePools, unserved have no connected edge, full have no free
// address, and the edges of refusing do not count.
func GatewayProgrammed(edges int, unserved, full, refusing []string) Condition {
	message := fmt.Sprintf("all %d connected edges serve this generation", edges)
	if len(unserved) > 0 {
		message += fmt.Sprintf("; no edge of EdgePools %s is connected: start Envoys there (chart edge)", quoted(unserved))
	}
	if len(refusing) > 0 {
		message += fmt.Sprintf("; those of EdgePools %s refused a part of it and keep what they had: upgrade these Envoys", quoted(refusing))
	}
	if len(full) > 0 {
		message += fmt.Sprintf("; EdgePools %s had no free address for it: add a block to spec.addresses", quoted(full))
	}
	return newCondition(gatewayv1.GatewayConditionProgrammed, true, gatewayv1.GatewayReasonProgrammed, message)
}

// GatewayNoEdge says that no edge of the Gateway's EdgePools is connected.
func GatewayNoEdge(pools []string) Condition {
	return newCondition(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonPending,
		fmt.Sprintf("no edge of EdgePools %s is connected; start Envoys there (chart edge) and look at EdgePool status", quoted(pools)))
}

// GatewayWaitsForEdges says how many of the connected edges serve this generation.
func GatewayWaitsForEdges(acked, connected int) Condition {
	return newCondition(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonPending,
		fmt.Sprintf("%d of %d connected edges serve this generation", acked, connected))
}

// GatewayNoAddress says why a Gateway has no address.
func GatewayNoAddress(why string) Condition {
	return newCondition(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonAddressNotAssigned, why)
}

// GatewayNotProgrammed says that an invalid Gateway is not served.
func GatewayNotProgrammed() Condition {
	return newCondition(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonInvalid,
		"the Gateway is not accepted, see condition Accepted")
}

// ListenerAccepted says that a listener is valid.
func ListenerAccepted() Condition {
	return newCondition(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, "the listener is valid")
}

// ListenerUnsupportedProtocol says that a listener's protocol is not supported,
// and which are.
func ListenerUnsupportedProtocol(protocol string) Condition {
	return newCondition(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedProtocol,
		fmt.Sprintf("protocol %q is not supported; use HTTP or HTTPS", protocol))
}

// ListenerUnsupportedValue has the problem with a listener's field.
func ListenerUnsupportedValue(problem string) Condition {
	return newCondition(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedValue, problem)
}

// ListenerNotAccepted is the condition Accepted of a listener with a conflict.
func ListenerNotAccepted(conflict Condition) Condition {
	return newCondition(gatewayv1.ListenerConditionAccepted, false, conflict.Reason, conflict.Message)
}

// ListenerNoConflicts says that a listener is distinct from all others.
func ListenerNoConflicts() Condition {
	return newCondition(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, "no other listener conflicts")
}

// ListenerHostnameConflict names the other listeners with the same hostname and port.
func ListenerHostnameConflict(port int32, hostname string, others []string) Condition {
	return newCondition(gatewayv1.ListenerConditionConflicted, true, gatewayv1.ListenerReasonHostnameConflict,
		fmt.Sprintf("listeners %s have hostname %q on port %d, too; none of them is served: give each its own hostname or port", quoted(others), hostname, port))
}

// ListenerProtocolConflict names the listeners with another protocol on the same port.
func ListenerProtocolConflict(port int32, protocol string, others []string) Condition {
	return newCondition(gatewayv1.ListenerConditionConflicted, true, gatewayv1.ListenerReasonProtocolConflict,
		fmt.Sprintf("port %d is %s here and something else in listeners %s; none of them is served: give each protocol its own port", port, protocol, quoted(others)))
}

// ListenerResolved says that all references of a listener are resolved.
func ListenerResolved() Condition {
	return newCondition(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "all references are resolved")
}

// ListenerInvalidCertificate has the problem with a certificateRef.
func ListenerInvalidCertificate(problem string) Condition {
	return newCondition(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidCertificateRef, problem)
}

// ListenerCertificateNotPermitted says which ReferenceGrant is missing.
func ListenerCertificateNotPermitted(secret fleet.ObjectName, namespace string) Condition {
	return newCondition(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonRefNotPermitted,
		fmt.Sprintf("Secret %q is in another namespace; add a ReferenceGrant in namespace %q from Gateways of namespace %q to it", secret, secret.Namespace, namespace))
}

// ListenerInvalidRouteKinds names the kinds in allowedRoutes that cannot attach to
// the listener, and the kinds that can.
func ListenerInvalidRouteKinds(kinds, supported []string) Condition {
	return newCondition(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidRouteKinds,
		fmt.Sprintf("allowedRoutes names kinds %s that cannot attach here; use %s", quoted(kinds), strings.Join(supported, ", ")))
}

// ListenerProgrammed is the condition Programmed of a valid listener: it follows
// the Gateway's.
func ListenerProgrammed(gateway Condition) Condition {
	reason := gatewayv1.ListenerReasonPending
	if gateway.Status == metav1.ConditionTrue {
		reason = gatewayv1.ListenerReasonProgrammed
	}
	return newCondition(gatewayv1.ListenerConditionProgrammed, gateway.Status == metav1.ConditionTrue, reason, gateway.Message)
}

// ListenerNotProgrammed says that a broken listener is not served.
func ListenerNotProgrammed() Condition {
	return newCondition(gatewayv1.ListenerConditionProgrammed, false, gatewayv1.ListenerReasonInvalid,
		"the listener is not served, see its other conditions")
}

// ListenerOverlappingHostnames names the listeners whose hostnames overlap with
// this one's. A request on a connection for another listener is answered 421.
func ListenerOverlappingHostnames(others []string) Condition {
	return newCondition(gatewayv1.ListenerConditionOverlappingTLSConfig, true, gatewayv1.ListenerReasonOverlappingHostnames,
		fmt.Sprintf("the hostname overlaps with listeners %s; a client that reuses a connection across them is answered 421", quoted(others)))
}
