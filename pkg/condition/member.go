package condition

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// Types of the conditions of a MemberCluster.
const (
	MemberReadyType           = "Ready"
	MemberJoinedType          = "Joined"
	MemberReachableType       = "Reachable"
	MemberExportsAcceptedType = "ExportsAccepted"
	MemberWithdrawalPaused    = "WithdrawalPaused"
	MemberClockDiffers        = "ClockDiffers"
	MemberIdentityConflict    = "IdentityConflict"
	MemberDrainedType         = "Drained"
)

// MemberReady says in one line how a member is. cause is the condition that says
// most about it, whose reason and message it has: while ready is false, what is in
// the way, and otherwise what is refused of the member, or the sign of life.
func MemberReady(ready bool, cause Condition) Condition {
	return newCondition(MemberReadyType, ready, cause.Reason, cause.Message)
}

// MemberJoined says that a member has its namespace and Role on the hub. Its
// transition time is the time when the member was accepted.
func MemberJoined(namespace, user string) Condition {
	return newCondition(MemberJoinedType, true, "Accepted",
		fmt.Sprintf("user %q may write exports to namespace %q", user, namespace))
}

// MemberNotAccepted says that spec.accepted of a cluster is not true.
func MemberNotAccepted() Condition {
	return newCondition(MemberJoinedType, false, "NotAccepted",
		"this cluster offers nothing and its agent is refused; set spec.accepted to true to let it in")
}

// MemberWithoutCredential says that a cluster was accepted, and that nobody is let in.
func MemberWithoutCredential(cluster fleet.ClusterName) Condition {
	return newCondition(MemberJoinedType, false, "NoCredential",
		fmt.Sprintf("no cluster has a credential of this name: none has joined yet, or its credential ended; make a token with `crossway token create %s`, and run `crossway join` in the cluster", cluster))
}

// MemberAsksToJoin says that a cluster with a join token waits to be accepted.
func MemberAsksToJoin(cluster fleet.ClusterName, uid string) Condition {
	return newCondition(MemberJoinedType, false, "WaitsForAcceptance",
		fmt.Sprintf("the cluster with UID %s asks to join; if that is what `kubectl get namespace kube-system -o jsonpath={.metadata.uid}` prints in the cluster that you mean, run `crossway accept %s`, else `crossway revoke %s`",
			uid, cluster, cluster))
}

// MemberNamespaceTaken says that a namespace with the name of the member's exists
// and was not made by Crossway.
func MemberNamespaceTaken(namespace, label string, cluster fleet.ClusterName) Condition {
	return newCondition(MemberJoinedType, false, "NamespaceTaken",
		fmt.Sprintf("namespace %q exists and was not made for this cluster; delete it, or give it to the cluster by the label %s=%s", namespace, label, cluster))
}

// MemberNamespaceTerminating says that the namespace of an earlier membership
// is still being deleted.
func MemberNamespaceTerminating(namespace string) Condition {
	return newCondition(MemberJoinedType, false, "NamespaceTerminating",
		fmt.Sprintf("namespace %q is still being deleted; the cluster joins when it is gone", namespace))
}

// ProfileControlPlane says of a ClusterProfile whether the cluster's control plane
// answers. Of a cluster whose agent is silent that is not known.
func ProfileControlPlane(heard bool, reason string) Condition {
	if heard {
		return newCondition("ControlPlaneHealthy", true, reason, "the agent in the cluster leads there, for which its API server answers, and renews its Lease on the hub")
	}
	return Condition{Type: "ControlPlaneHealthy", Status: metav1.ConditionUnknown, Reason: reason, Message: "the agent in the cluster is not heard"}
}

// MemberExportsAccepted says that no export or endpoint of a member is refused.
func MemberExportsAccepted() Condition {
	return newCondition(MemberExportsAcceptedType, true, "Accepted",
		"no export or endpoint of this cluster is refused")
}

// MemberExportsIgnored says that a cluster's exports are ignored, because it has
// not joined.
func MemberExportsIgnored() Condition {
	return newCondition(MemberExportsAcceptedType, false, "NotJoined",
		"exports of this cluster are ignored; condition Joined says why")
}

// MemberNoCIDRs says that spec.endpointCIDRs is empty, so all endpoints are refused.
func MemberNoCIDRs() Condition {
	return newCondition(MemberExportsAcceptedType, false, "NoEndpointCIDRs",
		"spec.endpointCIDRs is empty, so none of this cluster's endpoints gets traffic; list the ranges of its pod addresses there")
}

// MemberCIDRsRefused names the CIDRs of a member that are ignored, and why.
func MemberCIDRsRefused(problems []string) Condition {
	return newCondition(MemberExportsAcceptedType, false, "EndpointCIDRsRefused",
		andMore(problems)+"; no endpoint in a refused range gets traffic: correct spec.endpointCIDRs")
}

// MemberNamespacesNotAllowed names the namespaces that a member exports from and
// may not, with the line that would allow them.
func MemberNamespacesNotAllowed(namespaces []string) Condition {
	return newCondition(MemberExportsAcceptedType, false, "NamespacesNotAllowed",
		fmt.Sprintf("exports from namespaces %s are not offered; allow them by spec.exports.namespaces: [%s], beside those that are there, or delete the ServiceExports in the cluster",
			andMore(quotedNames(namespaces)), strings.Join(namespaces[:min(len(namespaces), maxListed)], ", ")))
}

// MemberQuotaReached says that the hub takes no more objects of a member: full are like
// "500 exports".
func MemberQuotaReached(full []string) Condition {
	return newCondition(MemberExportsAcceptedType, false, "QuotaReached",
		fmt.Sprintf("the cluster has all %s that the hub takes of it; more are refused, and their ServiceExports say so: delete some, or raise spec.exports", strings.Join(full, " and ")))
}

// MemberEndpointsRefused names the exports of a member that have refused endpoints.
func MemberEndpointsRefused(services []string) Condition {
	return newCondition(MemberExportsAcceptedType, false, "EndpointsRefused",
		fmt.Sprintf("endpoints of %s are refused or too many; condition EndpointsAdmitted of the MemberExport says which and why", andMore(quotedNames(services))))
}

// MemberWithdrawalsWait says that a member's agent found most of the member's exports
// gone at its start, and that they stay on the hub until somebody decides. pause is
// its name for that, like 11-of-12-20260101T080000Z.
func MemberWithdrawalsWait(namespace, lease, annotation, pause string) Condition {
	return newCondition(MemberWithdrawalPaused, true, "ExportsMissing",
		fmt.Sprintf("when its agent started, the cluster lacked most of its exports or their Services (%s), as after the loss of its etcd; they stay on the hub. "+
			"Restore them in the cluster or, to withdraw them: kubectl annotate lease --namespace %s %s --overwrite %s=%s", pause, namespace, lease, annotation, pause))
}

// MemberClockIsOff says that a member's clock and the hub's differ, with what both said
// at one moment.
func MemberClockIsOff(member, hub time.Time) Condition {
	reason, word, difference := "Behind", "behind", hub.Sub(member)
	if difference < 0 {
		reason, word, difference = "Ahead", "ahead of", -difference
	}
	return newCondition(MemberClockDiffers, true, reason,
		fmt.Sprintf("the cluster's clock is %s %s the hub's: when its agent renewed its Lease it said %s, and the hub's said %s. "+
			"Nothing is taken away for that, and the agent is judged by the hub's clock. Look at NTP on the nodes of both", difference.Round(time.Second), word,
			member.UTC().Format(time.RFC3339), hub.UTC().Format(time.RFC3339)))
}

// MemberCloned says that another cluster uses the credential of a member, and is refused.
// Clusters are told apart by the UIDs of their namespaces kube-system; a copy of an
// etcd has the same.
func MemberCloned(cluster fleet.ClusterName, own, other string) Condition {
	who := fmt.Sprintf("the cluster whose namespace kube-system has UID %s uses the credential of cluster %s (UID %s)", other, cluster, own)
	if own == other {
		who = fmt.Sprintf("two clusters with the same UID of namespace kube-system (%s) use the credential of cluster %s, as when an etcd was copied", own, cluster)
	}
	return newCondition(MemberIdentityConflict, true, "AnotherCluster",
		who+fmt.Sprintf("; the second is refused and works on nothing, the first keeps its exports. Give the second a name of its own: crossway token create <name>, and crossway join there. "+
			"If it replaces the first: crossway revoke %s, then crossway token create %s", cluster, cluster))
}

// MemberDrains says that a member's requests move to other clusters or back, and until when.
func MemberDrains(from, to int32, end time.Time) Condition {
	return newCondition(MemberDrainedType, false, "Moving",
		fmt.Sprintf("the part of the cluster's requests that other clusters get goes from %d to %d %%, until %s", from, to, end.UTC().Format(time.RFC3339)))
}

// MemberDrained says which part of a member's requests other clusters get, as long as they can. It is true for all.
func MemberDrained(percent int32) Condition {
	reason := "Partly"
	if percent == 100 {
		reason = "Drained"
	}
	return newCondition(MemberDrainedType, percent == 100, reason,
		fmt.Sprintf("other clusters get %d %% of the cluster's requests, of services that they export, too; `crossway undrain` gives them back", percent))
}
