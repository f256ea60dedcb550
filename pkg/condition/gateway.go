package condition

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// RefusedByEdge is the reason for an object that an edge did not take, though
// the hub had found nothing wrong with it.
const RefusedByEdge = "RefusedByEdge"

func verdict[T, R ~string](kind T, ok bool, reason R, message string) Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return Condition{Type: string(kind), Status: status, Reason: string(reason), Message: message}
}

// ClassAccepted says that Gateways of the class are served.
func ClassAccepted() Condition {
	return verdict(gatewayv1.GatewayClassConditionStatusAccepted, true, gatewayv1.GatewayClassReasonAccepted,
		"Gateways of this class are served by Crossway")
}

// ClassInvalidParameters says what is wrong with a class's parametersRef.
func ClassInvalidParameters(wrong string) Condition {
	return verdict(gatewayv1.GatewayClassConditionStatusAccepted, false, gatewayv1.GatewayClassReasonInvalidParameters, wrong)
}

// ClassSupportedVersion says that the installed Gateway API is one that Crossway knows.
func ClassSupportedVersion(installed string) Condition {
	return verdict(gatewayv1.GatewayClassConditionStatusSupportedVersion, true, gatewayv1.GatewayClassReasonSupportedVersion,
		fmt.Sprintf("Gateway API %s is supported", installed))
}

// ClassUnsupportedVersion says which Gateway API is installed and which is wanted.
func ClassUnsupportedVersion(installed, wanted string) Condition {
	return verdict(gatewayv1.GatewayClassConditionStatusSupportedVersion, false, gatewayv1.GatewayClassReasonUnsupportedVersion,
		fmt.Sprintf("the installed Gateway API CRDs are %s; Crossway is made for %s: install these", installed, wanted))
}

// GatewayAccepted says that a Gateway is valid; notes say what of it has no effect.
func GatewayAccepted(notes ...string) Condition {
	message := "the Gateway is valid"
	if len(notes) > 0 {
		message += "; " + strings.Join(notes, "; ")
	}
	return verdict(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, message)
}

// GatewayListenersNotValid names the listeners that are not; the Gateway is
// accepted while at least one other is.
func GatewayListenersNotValid(invalid, valid []string) Condition {
	message := fmt.Sprintf("listeners %s are not valid, see their own conditions; no listener is left", quoted(invalid))
	if len(valid) > 0 {
		message = fmt.Sprintf("listeners %s are not valid, see their own conditions; accepted: %s", quoted(invalid), quoted(valid))
	}
	return verdict(gatewayv1.GatewayConditionAccepted, len(valid) > 0, gatewayv1.GatewayReasonListenersNotValid, message)
}

// GatewayInvalidParameters says what is wrong with the parameters of a Gateway or its class.
func GatewayInvalidParameters(wrong string) Condition {
	return verdict(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalidParameters, wrong)
}

// GatewayUnsupportedAddress says that an address was asked for by value.
func GatewayUnsupportedAddress(kind, value string) Condition {
	return verdict(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonUnsupportedAddress,
		fmt.Sprintf("spec.addresses asks for %s %q, but addresses come from the EdgePools; remove it, or ask for type IPAddress without a value", kind, value))
}

// GatewayUnsupported says which field of a Gateway is not supported.
func GatewayUnsupported(field string) Condition {
	return verdict(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalid,
		fmt.Sprintf("%s is not supported; remove it", field))
}

// GatewayClassMissing says that the Gateway's class was deleted and the Gateway
// is no longer served.
func GatewayClassMissing(class string) Condition {
	return verdict(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalid,
		fmt.Sprintf("GatewayClass %q does not exist any more; create it, or correct spec.gatewayClassName", class))
}

// GatewayProgrammed says that every connected edge serves this generation. Of
// its EdgePools, unserved have no edge, and full had no address for it.
func GatewayProgrammed(edges int, unserved, full []string) Condition {
	message := fmt.Sprintf("all %d connected edges serve this generation", edges)
	if len(unserved) > 0 {
		message += fmt.Sprintf("; no edge of EdgePools %s is connected: start Envoys there (chart edge)", quoted(unserved))
	}
	if len(full) > 0 {
		message += fmt.Sprintf("; EdgePools %s had no free address for it: add a block to spec.addresses", quoted(full))
	}
	return verdict(gatewayv1.GatewayConditionProgrammed, true, gatewayv1.GatewayReasonProgrammed, message)
}

// GatewayNoEdge says that nobody is there to serve the Gateway.
func GatewayNoEdge(pools []string) Condition {
	return verdict(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonPending,
		fmt.Sprintf("no edge of EdgePools %s is connected; start Envoys there (chart edge) and look at EdgePool status", quoted(pools)))
}

// GatewayWaitsForEdges says how many edges serve this generation already.
func GatewayWaitsForEdges(acked, connected int) Condition {
	return verdict(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonPending,
		fmt.Sprintf("%d of %d connected edges serve this generation", acked, connected))
}

// GatewayNoAddress says why a Gateway has no address.
func GatewayNoAddress(why string) Condition {
	return verdict(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonAddressNotAssigned, why)
}

// GatewayNotProgrammed says that an invalid Gateway is not served.
func GatewayNotProgrammed() Condition {
	return verdict(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonInvalid,
		"the Gateway is not accepted, see condition Accepted")
}

// GatewayRefusedByEdge repeats Envoy's error detail. Edges keep the last listener that they accepted.
func GatewayRefusedByEdge(detail string) Condition {
	return verdict(gatewayv1.GatewayConditionProgrammed, false, RefusedByEdge,
		"an edge refused this generation and keeps serving the last one: "+detail)
}

// ListenerAccepted says that a listener is valid.
func ListenerAccepted() Condition {
	return verdict(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, "the listener is valid")
}

// ListenerUnsupportedProtocol says which protocols there are instead.
func ListenerUnsupportedProtocol(protocol string) Condition {
	return verdict(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedProtocol,
		fmt.Sprintf("protocol %q is not supported; use HTTP or HTTPS", protocol))
}

// ListenerUnsupportedValue says what is wrong with a listener's field.
func ListenerUnsupportedValue(wrong string) Condition {
	return verdict(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedValue, wrong)
}

// ListenerNotAccepted repeats a conflict under Accepted.
func ListenerNotAccepted(conflict Condition) Condition {
	return Condition{Type: string(gatewayv1.ListenerConditionAccepted), Status: metav1.ConditionFalse, Reason: conflict.Reason, Message: conflict.Message}
}

// ListenerNoConflicts says that a listener is distinct from all others.
func ListenerNoConflicts() Condition {
	return verdict(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, "no other listener conflicts")
}

// ListenerHostnameConflict names the listeners that claim the same hostname.
func ListenerHostnameConflict(port int32, hostname string, others []string) Condition {
	return verdict(gatewayv1.ListenerConditionConflicted, true, gatewayv1.ListenerReasonHostnameConflict,
		fmt.Sprintf("listeners %s have hostname %q on port %d, too; none of them is served: give each its own hostname or port", quoted(others), hostname, port))
}

// ListenerProtocolConflict names the listeners that speak another protocol on the port.
func ListenerProtocolConflict(port int32, protocol string, others []string) Condition {
	return verdict(gatewayv1.ListenerConditionConflicted, true, gatewayv1.ListenerReasonProtocolConflict,
		fmt.Sprintf("port %d is %s here and something else in listeners %s; none of them is served: give each protocol its own port", port, protocol, quoted(others)))
}

// ListenerResolved says that all that a listener names is there.
func ListenerResolved() Condition {
	return verdict(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "all references are resolved")
}

// ListenerInvalidCertificate says what is wrong with a certificateRef.
func ListenerInvalidCertificate(wrong string) Condition {
	return verdict(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidCertificateRef, wrong)
}

// ListenerCertificateNotPermitted says which ReferenceGrant is missing.
func ListenerCertificateNotPermitted(secret fleet.ObjectName, namespace string) Condition {
	return verdict(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonRefNotPermitted,
		fmt.Sprintf("Secret %q is in another namespace; add a ReferenceGrant in namespace %q from Gateways of namespace %q to it", secret, secret.Namespace, namespace))
}

// ListenerInvalidRouteKinds names the kinds in allowedRoutes that cannot attach,
// and those that can.
func ListenerInvalidRouteKinds(kinds, supported []string) Condition {
	return verdict(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidRouteKinds,
		fmt.Sprintf("allowedRoutes names kinds %s that cannot attach here; use %s", quoted(kinds), strings.Join(supported, ", ")))
}

// ListenerProgrammed carries the Gateway's word over to its valid listeners.
func ListenerProgrammed(gateway Condition) Condition {
	reason := gatewayv1.ListenerReasonPending
	if gateway.Status == metav1.ConditionTrue {
		reason = gatewayv1.ListenerReasonProgrammed
	}
	return verdict(gatewayv1.ListenerConditionProgrammed, gateway.Status == metav1.ConditionTrue, reason, gateway.Message)
}

// ListenerNotProgrammed says that a broken listener is not served.
func ListenerNotProgrammed() Condition {
	return verdict(gatewayv1.ListenerConditionProgrammed, false, gatewayv1.ListenerReasonInvalid,
		"the listener is not served, see its other conditions")
}

// ListenerOverlappingHostnames names listeners whose hostnames overlap. A
// request on a connection for another listener is answered 421.
func ListenerOverlappingHostnames(others []string) Condition {
	return verdict(gatewayv1.ListenerConditionOverlappingTLSConfig, true, gatewayv1.ListenerReasonOverlappingHostnames,
		fmt.Sprintf("the hostname overlaps with listeners %s; a client that reuses a connection across them is answered 421", quoted(others)))
}

// quoted gives `"a", "b"`.
func quoted(names []string) string {
	marked := make([]string, len(names))
	for i, name := range names {
		marked[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(marked, ", ")
}
