package registration

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

const (
	// LeaseRenewal is how often an agent renews its Lease.
	LeaseRenewal = 10 * time.Second
	// LeaseDuration is after how long without a renewal a member counts as
	// silent: three renewals may be lost.
	LeaseDuration = 40 * time.Second
	// StatusInterval is how often numbers and times in a MemberCluster's status
	// are written where no condition changed.
	StatusInterval = 30 * time.Second
)

// NamespaceState is what is there where a member's namespace shall be.
type NamespaceState uint8

const (
	NamespaceOurs NamespaceState = iota
	NamespaceTaken
	NamespaceTerminating
)

// MemberFacts are what the hub sees of one MemberCluster.
type MemberFacts struct {
	Member    v1alpha1.MemberCluster
	Admission Admission
	Namespace NamespaceState
	Heard     *time.Time // the Lease's last renewal; nil: never
	Refused   []string   // names of its exports with refused endpoints, sorted
	Now       time.Time
}

// Verdicts are the conditions of a MemberCluster: Joined, Reachable,
// ExportsAccepted. Silence takes nothing away: it is only told.
func Verdicts(f MemberFacts) []condition.Condition {
	cluster := fleet.ClusterName(f.Member.Name)
	joined := joinedVerdict(f, cluster)
	return []condition.Condition{joined, reachable(f, cluster), exportsAccepted(f, joined.Status == metav1.ConditionTrue)}
}

func joinedVerdict(f MemberFacts, cluster fleet.ClusterName) condition.Condition {
	switch {
	case !Accepted(&f.Member):
		return condition.MemberNotAccepted()
	case f.Namespace == NamespaceTaken:
		return condition.MemberNamespaceTaken(Namespace(cluster), v1alpha1.LabelMember, cluster)
	case f.Namespace == NamespaceTerminating:
		return condition.MemberNamespaceTerminating(Namespace(cluster))
	}
	return condition.MemberJoined(Namespace(cluster), User(cluster))
}

func reachable(f MemberFacts, cluster fleet.ClusterName) condition.Condition {
	switch {
	case f.Heard == nil:
		return condition.MemberNeverHeard(cluster)
	case f.Now.Sub(*f.Heard) >= LeaseDuration:
		return condition.MemberSilent(*f.Heard)
	}
	return condition.MemberReachable()
}

func exportsAccepted(f MemberFacts, joined bool) condition.Condition {
	switch {
	case !joined:
		return condition.MemberExportsIgnored()
	case len(f.Admission.Faults) > 0:
		return condition.MemberCIDRsRefused(f.Admission.Faults)
	case len(f.Admission.CIDRs) == 0:
		return condition.MemberNoCIDRs()
	case len(f.Refused) > 0:
		return condition.MemberEndpointsRefused(f.Refused)
	}
	return condition.MemberExportsAccepted()
}

// AcceptedAt is since when a member's exports count: when condition Joined
// became true, or else, before the hub has said so, when it was created.
func AcceptedAt(m *v1alpha1.MemberCluster) time.Time {
	for _, c := range m.Status.Conditions {
		if c.Type == condition.MemberJoinedType && c.Status == metav1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return m.CreationTimestamp.Time
}
