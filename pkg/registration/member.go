package registration

import (
	"regexp"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

const (
	// StatusInterval is the time between two writes of a MemberCluster's status
	// if no condition changes: the least for numbers and times.
	StatusInterval = 30 * time.Second
)

// NamespaceState is the state of a member's namespace on the hub.
type NamespaceState uint8

const (
	NamespaceOurs        NamespaceState = iota // it exists, made for this member
	NamespaceTaken                             // somebody else made a namespace of this name
	NamespaceTerminating                       // it is being deleted
)

// MemberFacts is what the hub observes of one MemberCluster.
type MemberFacts struct {
	Member      v1alpha1.MemberCluster
	Admission   Admission
	Namespace   NamespaceState
	LastRenewal *time.Time        // of the agent's Lease, when the hub saw it; nil: never
	Evidence    Evidence          // beside the Lease
	Refused     []string          // names of its exports with refused endpoints, sorted
	NotAllowed  []string          // namespaces that it exports from and may not, sorted
	Full        []string          // what the hub takes no more of (Full)
	Exports     int               // number of its MemberExports
	Lease       map[string]string // annotations of the agent's Lease
	Clocks      ClockHistory
	Refusal     *time.Time // when a second cluster with the member's credential was last heard; nil: never
	Now         time.Time
}

// Conditions returns the conditions of a MemberCluster: Joined, Reachable,
// ExportsAccepted and Ready, which sums up all; WithdrawalPaused if its agent asks for a
// word, ClockDiffers if its clock is not the hub's, IdentityConflict while another cluster
// uses its credential, Drained if it has a drain. A silent member loses nothing but Reachable and Ready.
func Conditions(f MemberFacts) []condition.Condition {
	cluster := fleet.ClusterName(f.Member.Name)
	joined, heard := joinedCondition(f, cluster), reachable(f, cluster)
	accepted := exportsAccepted(f, Accepted(&f.Member) && f.Namespace == NamespaceOurs)
	conditions := []condition.Condition{joined, heard, accepted}
	if refusal, ok := ParseRefusal(f.Lease[v1alpha1.AnnotationRefusedClusterUID]); ok && f.Refusal != nil && f.Now.Sub(*f.Refusal) < refusalLife {
		if c := InForce(&f.Member); c != nil { // the UID is the hub's word, not the Lease's
			conditions = append(conditions, condition.MemberCloned(cluster, c.ClusterUID, refusal.ClusterUID))
		}
	}
	if pause := f.Lease[v1alpha1.AnnotationWithdrawalPaused]; pausePattern.MatchString(pause) && f.Lease[v1alpha1.AnnotationWithdraw] != pause {
		conditions = append(conditions, condition.MemberWithdrawalsWait(v1alpha1.MemberNamespace(cluster), v1alpha1.AgentLease, v1alpha1.AnnotationWithdraw, pause))
	}
	conditions = append(conditions, clockDiffers(f)...)
	conditions = append(conditions, ready(f, joined, heard, accepted, conditions[3:]))
	return append(conditions, drainedCondition(f)...)
}

// ready is the condition to look at first: what keeps the member from serving, else what
// is wrong with it all the same, else its sign of life. A member of whose exports no
// endpoint can count does not serve. others are conditions that are there while something is wrong.
func ready(f MemberFacts, joined, heard, accepted condition.Condition, others []condition.Condition) condition.Condition {
	switch isTrue := metav1.ConditionTrue; {
	case joined.Status != isTrue:
		return condition.MemberReady(false, joined)
	case heard.Status != isTrue:
		return condition.MemberReady(false, heard)
	case accepted.Status != isTrue:
		return condition.MemberReady(f.Exports == 0 || len(f.Admission.CIDRs) > 0, accepted)
	case len(others) > 0:
		return condition.MemberReady(true, others[0])
	}
	return condition.MemberReady(true, heard)
}

// clockDiffers is the condition of that type, if any. A hub that has just started does not
// know better than the one before it.
func clockDiffers(f MemberFacts) []condition.Condition {
	switch before := meta.FindStatusCondition(f.Member.Status.Conditions, condition.MemberClockDiffers); {
	case f.Clocks.Known() && f.Clocks.told != nil:
		return []condition.Condition{condition.MemberClockIsOff(f.Clocks.told.Member, f.Clocks.told.Hub)}
	case !f.Clocks.Known() && before != nil:
		return []condition.Condition{{Type: before.Type, Status: before.Status, Reason: before.Reason, Message: before.Message}}
	}
	return nil
}

// pausePattern is what a pause's name looks like (serviceexport.PauseName). Any other
// text that an agent writes there is not shown to admins.
var pausePattern = regexp.MustCompile(`^[0-9]{1,7}-of-[0-9]{1,7}-[0-9]{8}T[0-9]{6}Z$`)

func joinedCondition(f MemberFacts, cluster fleet.ClusterName) condition.Condition {
	credential, asks := InForce(&f.Member), f.Member.Status.JoinRequest
	switch {
	case !Accepted(&f.Member) && asks != nil:
		return condition.MemberAsksToJoin(cluster, asks.ClusterUID)
	case !Accepted(&f.Member):
		return condition.MemberNotAccepted()
	case f.Namespace == NamespaceTaken:
		return condition.MemberNamespaceTaken(v1alpha1.MemberNamespace(cluster), v1alpha1.LabelMember, cluster)
	case f.Namespace == NamespaceTerminating:
		return condition.MemberNamespaceTerminating(v1alpha1.MemberNamespace(cluster))
	}
	if credential == nil {
		return condition.MemberWithoutCredential(cluster)
	}
	return condition.MemberJoined(v1alpha1.MemberNamespace(cluster), CredentialUser(cluster, credential.Kind, credential.ID))
}

func exportsAccepted(f MemberFacts, joined bool) condition.Condition {
	switch {
	case !joined:
		return condition.MemberExportsIgnored()
	case len(f.Admission.Faults) > 0:
		return condition.MemberCIDRsRefused(f.Admission.Faults)
	case len(f.Admission.CIDRs) == 0:
		return condition.MemberNoCIDRs()
	case len(f.NotAllowed) > 0:
		return condition.MemberNamespacesNotAllowed(f.NotAllowed)
	case len(f.Full) > 0:
		return condition.MemberQuotaReached(f.Full)
	case len(f.Refused) > 0:
		return condition.MemberEndpointsRefused(f.Refused)
	}
	return condition.MemberExportsAccepted()
}

// AcceptedAt is the time from which a member's exports count: when condition
// Joined became true or, before the hub has written it, when the MemberCluster
// was created.
func AcceptedAt(m *v1alpha1.MemberCluster) time.Time {
	for _, c := range m.Status.Conditions {
		if c.Type == condition.MemberJoinedType && c.Status == metav1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return m.CreationTimestamp.Time
}
