package condition

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// Reasons of condition Reachable: by whose word.
const (
	ByGossip    = "Gossip"
	ByLease     = "Lease"
	ByDataPlane = "DataPlane"
)

// MemberReachable says that a member's agent renews its Lease, and no more: it does not
// gossip.
func MemberReachable() Condition {
	return newCondition(MemberReachableType, true, ByLease, "the agent renews its Lease")
}

// MemberHeard says that both gossip and the Lease show that a member's agent lives.
func MemberHeard() Condition {
	return newCondition(MemberReachableType, true, ByGossip, "the hub hears the agent, which renews its Lease")
}

// MemberRefused says that nothing is known of a cluster that is not accepted,
// because the hub refuses its agent.
func MemberRefused() Condition {
	return Condition{
		Type: MemberReachableType, Status: metav1.ConditionUnknown, Reason: "NotAccepted",
		Message: "the hub refuses the agent of this cluster; condition Joined says why",
	}
}

// MemberNeverHeard says that no agent of the cluster has connected yet.
func MemberNeverHeard(cluster fleet.ClusterName) Condition {
	return Condition{
		Type: MemberReachableType, Status: metav1.ConditionUnknown, Reason: "NeverHeard",
		Message: fmt.Sprintf("no agent of this cluster has connected yet; join it: crossway token create %s, and with the token crossway join there", cluster),
	}
}

// Silence is what is known of an agent that gossip, or the hub by its Lease, does not hear.
type Silence struct {
	// Heard is when a replica of the hub heard it last by gossip; zero: never. Renewed is
	// when the hub saw its Lease renewed; zero: never.
	Heard, Renewed time.Time
	Left           bool // the agent's last word was that it stops
	// Reached and Unreached are others that tried to reach it since Heard.
	Reached, Unreached []string
	// Edges are regions whose edges reach pods of the cluster since it fell silent.
	Edges []string
}

// since is the last sign of life.
func (s Silence) since() string {
	if s.Renewed.After(s.Heard) {
		return inUTC(s.Renewed)
	}
	return inUTC(s.Heard)
}

// witnesses says who found what.
func (s Silence) witnesses() string {
	switch {
	case s.Left:
		return "its last word was that it stops"
	case len(s.Reached) > 0:
		return fmt.Sprintf("the hub does not hear it, but %s", verb(s.Reached, "reaches it", "reach it"))
	case len(s.Unreached) > 0:
		return fmt.Sprintf("neither the hub nor %s", verb(s.Unreached, "reaches it", "reach it"))
	}
	return "only the hub says so, and nobody else has a way to it"
}

// MemberHeardByOthers says that an agent renews its Lease, and that others hear it by
// gossip, but not the hub.
func MemberHeardByOthers(s Silence) Condition {
	return newCondition(MemberReachableType, true, ByGossip,
		fmt.Sprintf("the agent renews its Lease; gossip: not heard since %s: %s. Look at its way to port 18002 of the hub", inUTC(s.Heard), s.witnesses()))
}

// MemberRenewsUnheard says that an agent's Lease has not run out, and that gossip does not hear it.
func MemberRenewsUnheard(s Silence) Condition {
	return newCondition(MemberReachableType, true, ByLease,
		fmt.Sprintf("the agent's Lease has not run out, but gossip has not heard it since %s: %s. If it goes on renewing the Lease, look at its way to port 18002 of the hub", inUTC(s.Heard), s.witnesses()))
}

// MemberDoesNotRenew says that the hub hears an agent by gossip, which does not renew its Lease.
func MemberDoesNotRenew(s Silence) Condition {
	return newCondition(MemberReachableType, false, ByLease,
		fmt.Sprintf("the hub hears the agent by gossip, but its Lease %s: the cluster keeps its exports, and changes of them do not come; look at the agent's log and at its way to the hub's API server", s.lease()))
}

// MemberSilent says that a member's agent is not heard, since when, and by whose word.
func MemberSilent(s Silence) Condition {
	keeps := "; the cluster keeps its exports; check the member-agent's log and its network path to the hub"
	message, reason := fmt.Sprintf("the agent has not renewed its Lease since %s", inUTC(s.Renewed)), ByLease
	if !s.Heard.IsZero() {
		message = fmt.Sprintf("not heard of since %s: %s; its Lease %s", s.since(), s.witnesses(), s.lease())
		if !s.Left && len(s.Unreached) > 0 && len(s.Reached) == 0 {
			reason = ByGossip
		}
	}
	if len(s.Edges) > 0 {
		return newCondition(MemberReachableType, false, ByDataPlane,
			fmt.Sprintf("the cluster serves, its agent is silent: edges in %s get answers from its pods; the agent is %s%s", andMore(s.Edges), message, keeps))
	}
	return newCondition(MemberReachableType, false, reason, message+keeps)
}

func (s Silence) lease() string {
	if s.Renewed.IsZero() {
		return "was never renewed"
	}
	return "was renewed last at " + inUTC(s.Renewed)
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// verb joins names, and says what they do.
func verb(names []string, one, many string) string {
	if len(names) == 1 {
		return names[0] + " " + one
	}
	if len(names) > maxListed {
		return andMore(names) + " " + many
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last] + " " + many
}
