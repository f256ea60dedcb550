package condition

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// PolicyAccepted says that a policy acts on its target.
func PolicyAccepted() Condition {
	return newCondition(gatewayv1.PolicyConditionAccepted, true, gatewayv1.PolicyReasonAccepted, "the policy is in force")
}

// PolicyConflicted names the older policy for the same target (GEP-713).
func PolicyConflicted(target, winner fleet.ObjectName) Condition {
	return newCondition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonConflicted,
		fmt.Sprintf("BackendPolicy %q is older and acts on ServiceImport %q already; merge the two, or remove this target", winner, target))
}

// PolicyTargetNotFound says that a policy's target does not exist.
func PolicyTargetNotFound(target fleet.ObjectName) Condition {
	return newCondition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonTargetNotFound,
		fmt.Sprintf("ServiceImport %q does not exist; export Service %q from at least one cluster", target, target.Name))
}

// PolicyInvalid has the problem with a value of a policy.
func PolicyInvalid(problem string) Condition {
	return newCondition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonInvalid, problem)
}
