package condition

import (
	"fmt"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Types of the conditions of a CertificateSigningRequest (certificates.k8s.io).
const (
	JoinApprovedType = "Approved"
	JoinDeniedType   = "Denied"
)

// ReasonAccountToken is the reason of an approval that gives no certificate: the
// message is the name of the ServiceAccount whose tokens the agent may have.
const ReasonAccountToken = "ServiceAccountToken"

// ReasonClockDiffers is the one reason of a denial after which the same request may be made again.
const ReasonClockDiffers = "ClockDiffers"

func denied(reason, message string) Condition {
	return newCondition(JoinDeniedType, true, reason, message)
}

// JoinApproved says that a member's agent gets the certificate that it asked for.
func JoinApproved(cluster fleet.ClusterName) Condition {
	return newCondition(JoinApprovedType, true, "Accepted", fmt.Sprintf("MemberCluster %q is accepted", cluster))
}

// JoinApprovedWithToken says that a member's agent gets tokens of a ServiceAccount.
func JoinApprovedWithToken(account string) Condition {
	return newCondition(JoinApprovedType, true, ReasonAccountToken, account)
}

// JoinMalformed says that a request is none that an agent makes, and why.
func JoinMalformed(fault string) Condition {
	return denied("Malformed", fault+"; only the member-agent makes such requests: install it with `crossway join`")
}

// JoinWithoutMember says that there is no MemberCluster of the requested name.
func JoinWithoutMember(cluster fleet.ClusterName) Condition {
	return denied("NoMemberCluster", fmt.Sprintf("there is no MemberCluster %q; make a new token on the hub with `crossway token create %s`", cluster, cluster))
}

// JoinRevoked says that a credential was revoked.
func JoinRevoked(cluster fleet.ClusterName) Condition {
	return denied("Revoked", fmt.Sprintf("this credential of MemberCluster %q was revoked; to join again, make a new token on the hub with `crossway token create %s`", cluster, cluster))
}

// JoinNotInForce says that a credential is not the one that its MemberCluster has.
func JoinNotInForce(cluster fleet.ClusterName) Condition {
	return denied("NotInForce", fmt.Sprintf("this credential is not the one that MemberCluster %q has now: the cluster joined again, its acceptance was withdrawn, or the MemberCluster was made again; "+
		"make a new token on the hub with `crossway token create %s`", cluster, cluster))
}

// Reasons of the refusals that say the UID of another cluster.
const (
	ReasonNameTaken    = "NameTaken"
	ReasonAnotherWaits = "AnotherWaits"
)

// JoinNameTaken says that another cluster is the member of a name.
func JoinNameTaken(cluster fleet.ClusterName, joined, asks string) Condition {
	return denied(ReasonNameTaken, fmt.Sprintf("MemberCluster %q is the cluster with UID %s, and the UID of this one is %s; join it under another name or, if it replaces the other, "+
		"run `crossway revoke %s` on the hub and make a new token", cluster, joined, asks, cluster))
}

// JoinTokenUsed says that another request came first with a join token. joined is the
// UID of the cluster that made it.
func JoinTokenUsed(cluster fleet.ClusterName, joined string) Condition {
	return denied("TokenUsed", fmt.Sprintf("this join token was used before, by the cluster with UID %s; if you do not know that cluster, run `crossway revoke %s` on the hub; "+
		"make a new token with `crossway token create %s`", joined, cluster, cluster))
}

// JoinTokenEnded says that a join token has ended, or was made for an earlier MemberCluster.
func JoinTokenEnded(cluster fleet.ClusterName) Condition {
	return denied("TokenEnded", fmt.Sprintf("this join token has ended, or was made for an earlier MemberCluster %q; make a new one on the hub with `crossway token create %s`", cluster, cluster))
}

// JoinAnotherWaits says that another request for the same name waits to be accepted.
func JoinAnotherWaits(cluster fleet.ClusterName, waits string) Condition {
	return denied(ReasonAnotherWaits, fmt.Sprintf("the cluster with UID %s waits to be accepted as MemberCluster %q; accept it on the hub with `crossway accept %s`, or refuse it with `crossway revoke %s`, "+
		"and make a new token", waits, cluster, cluster, cluster))
}

// JoinClockDiffers says that a cluster's clock differs from the hub's: ahead is by how
// much it is ahead, negative where it is behind. A certificate would not be valid yet,
// or end early.
func JoinClockDiffers(ahead time.Duration) Condition {
	where := "ahead of"
	if ahead < 0 {
		ahead, where = -ahead, "behind"
	}
	return denied(ReasonClockDiffers, fmt.Sprintf("the cluster's clock is %s %s the hub's; correct it (NTP), and the agent asks again", ahead.Round(time.Second), where))
}

// EdgeJoined says that edges get the certificate that they asked for.
func EdgeJoined(edge, credential string) Condition {
	return newCondition(JoinApprovedType, true, "EdgeJoined", fmt.Sprintf("edge of %s, credential %s", edge, credential))
}

// EdgeJoinMalformed says that a request is none that edges make, and why.
func EdgeJoinMalformed(pool, fault string) Condition {
	return denied("Malformed", fault+"; "+newEdgeToken(pool))
}

// EdgeJoinWithoutPool says that there is no EdgePool of the requested name.
func EdgeJoinWithoutPool(pool string) Condition {
	return denied("NoEdgePool", fmt.Sprintf("EdgePool %q does not exist; create it, and %s", pool, newEdgeToken(pool)))
}

// EdgeJoinTokenEnded says that a join token of edges has ended, or is of an earlier pool.
func EdgeJoinTokenEnded(pool string) Condition {
	return denied("TokenEnded", "the join token has ended, or was used; "+newEdgeToken(pool))
}

// EdgeJoinTokenUsed says that another request came first with a join token.
func EdgeJoinTokenUsed(pool, credential string) Condition {
	return denied("TokenUsed", fmt.Sprintf("another request got a certificate by this join token; if it was not yours, run `crossway revoke --edge %s --credential %s`; %s",
		pool, credential, newEdgeToken(pool)))
}

// EdgeJoinRevoked says that the credential of a join token was revoked.
func EdgeJoinRevoked(pool, credential string) Condition {
	return denied("Revoked", fmt.Sprintf("credential %s is revoked (spec.revokedCredentials of EdgePool %q); %s", credential, pool, newEdgeToken(pool)))
}

func newEdgeToken(pool string) string {
	return fmt.Sprintf("make a new token: crossway token create --edge %s --zone <zone>", pool)
}
