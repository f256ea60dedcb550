package condition

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// Types of the conditions of a MemberCluster.
const (
	MemberJoinedType          = "Joined"
	MemberReachableType       = "Reachable"
	MemberExportsAcceptedType = "ExportsAccepted"
)

// MemberJoined says that a member has its namespace and Role on the hub. Its
// transition time is when the member was accepted.
func MemberJoined(namespace, user string) Condition {
	return Condition{
		Type: MemberJoinedType, Status: metav1.ConditionTrue, Reason: "Accepted",
		Message: fmt.Sprintf("user %q may write exports to namespace %q", user, namespace),
	}
}

// MemberNotAccepted says that nobody let a cluster in yet.
func MemberNotAccepted() Condition {
	return Condition{
		Type: MemberJoinedType, Status: metav1.ConditionFalse, Reason: "NotAccepted",
		Message: "this cluster offers nothing and its agent is refused; set spec.accepted to true to let it in",
	}
}

// MemberNamespaceTaken says that somebody else's namespace has the name that a
// member's needs.
func MemberNamespaceTaken(namespace, label string, cluster fleet.ClusterName) Condition {
	return Condition{
		Type: MemberJoinedType, Status: metav1.ConditionFalse, Reason: "NamespaceTaken",
		Message: fmt.Sprintf("namespace %q exists and was not made for this cluster; delete it, or give it to the cluster by the label %s=%s", namespace, label, cluster),
	}
}

// MemberNamespaceTerminating says that the namespace of an earlier membership
// is still being deleted.
func MemberNamespaceTerminating(namespace string) Condition {
	return Condition{
		Type: MemberJoinedType, Status: metav1.ConditionFalse, Reason: "NamespaceTerminating",
		Message: fmt.Sprintf("namespace %q is still being deleted; the cluster joins when it is gone", namespace),
	}
}

// MemberReachable says that a member's agent renews its Lease.
func MemberReachable() Condition {
	return Condition{Type: MemberReachableType, Status: metav1.ConditionTrue, Reason: "Lease", Message: "the agent renews its Lease"}
}

// MemberSilent says since when a member's agent has not renewed its Lease.
func MemberSilent(since time.Time) Condition {
	return Condition{
		Type: MemberReachableType, Status: metav1.ConditionFalse, Reason: "Lease",
		Message: fmt.Sprintf("the agent has not renewed its Lease since %s; the cluster keeps its exports; look at the member-agent there and at its way to the hub", since.UTC().Format(time.RFC3339)),
	}
}

// MemberNeverHeard says that no agent has come yet.
func MemberNeverHeard(cluster fleet.ClusterName) Condition {
	return Condition{
		Type: MemberReachableType, Status: metav1.ConditionUnknown, Reason: "NeverHeard",
		Message: fmt.Sprintf("no agent of this cluster has come yet; install the member-agent there with --cluster=%s", cluster),
	}
}

// MemberExportsAccepted says that nothing of what a member exports is refused.
func MemberExportsAccepted() Condition {
	return Condition{Type: MemberExportsAcceptedType, Status: metav1.ConditionTrue, Reason: "Accepted", Message: "no export or endpoint of this cluster is refused"}
}

// MemberExportsIgnored says that a cluster which is not in offers nothing.
func MemberExportsIgnored() Condition {
	return Condition{Type: MemberExportsAcceptedType, Status: metav1.ConditionFalse, Reason: "NotJoined", Message: "exports of this cluster are ignored; condition Joined says why"}
}

// MemberNoCIDRs says that a member may announce no address at all.
func MemberNoCIDRs() Condition {
	return Condition{
		Type: MemberExportsAcceptedType, Status: metav1.ConditionFalse, Reason: "NoEndpointCIDRs",
		Message: "spec.endpointCIDRs is empty, so none of this cluster's endpoints gets traffic; list the ranges of its pod addresses there",
	}
}

// MemberCIDRsRefused says which of a member's CIDRs count for nothing, and why.
func MemberCIDRsRefused(faults []string) Condition {
	return Condition{
		Type: MemberExportsAcceptedType, Status: metav1.ConditionFalse, Reason: "EndpointCIDRsRefused",
		Message: andMore(faults) + "; no endpoint in a refused range gets traffic: correct spec.endpointCIDRs",
	}
}

// MemberEndpointsRefused says which exports of a member have refused endpoints.
func MemberEndpointsRefused(services []string) Condition {
	return Condition{
		Type: MemberExportsAcceptedType, Status: metav1.ConditionFalse, Reason: "EndpointsRefused",
		Message: fmt.Sprintf("endpoints of %s are refused; condition EndpointsAdmitted of the MemberExport says which and why", andMore(quotedNames(services))),
	}
}
