package registration

import (
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// gossipSilence is how long after gossip heard an agent last its Lease may still have been
// renewed by an agent that then died. Agents gossip each second.
const gossipSilence = 5 * time.Second

// Evidence is what shows beside the Lease whether a member lives. It explains and confirms:
// nothing but condition Reachable follows from it.
type Evidence struct {
	Gossip GossipWord
	// Edges are the regions whose edges got answers from pods of the member lately, sorted.
	Edges []string
}

// GossipWord is what gossip knows of a member's agent. The zero value: nothing.
type GossipWord struct {
	Heard  time.Time // when a replica of the hub heard it last; zero: never
	Silent bool      // no replica of the hub hears it
	Left   bool      // its last word was that it stops
	// Reached and Unreached are others that tried to reach it since Heard, sorted.
	Reached, Unreached []string
}

// reachable is the condition of that type. The Lease alone says that a member can change
// its exports, so a member is reachable without gossip, and not by gossip alone. Gossip
// says sooner that an agent died: by two words, of the hub and of somebody else.
func reachable(f MemberFacts, cluster fleet.ClusterName) condition.Condition {
	word := f.Evidence.Gossip
	never := word.Heard.IsZero()
	runs := f.LastRenewal != nil && f.Now.Sub(*f.LastRenewal) < v1alpha1.AgentLeaseDuration
	silence := condition.Silence{Heard: word.Heard, Left: word.Left, Reached: word.Reached, Unreached: word.Unreached}
	if f.LastRenewal != nil {
		silence.Renewed = *f.LastRenewal
	}
	switch {
	case !Accepted(&f.Member):
		return condition.MemberRefused()
	case f.LastRenewal == nil && never:
		return condition.MemberNeverHeard(cluster)
	case runs && (never || word.Left):
		return condition.MemberReachable()
	case runs && !word.Silent:
		return condition.MemberHeard()
	case runs && len(word.Reached) > 0:
		return condition.MemberHeardByOthers(silence)
	case runs && (len(word.Unreached) == 0 || f.LastRenewal.After(word.Heard.Add(gossipSilence))):
		return condition.MemberRenewsUnheard(silence)
	case !never && !word.Silent && !word.Left:
		return condition.MemberDoesNotRenew(silence)
	}
	silence.Edges = f.Evidence.Edges
	return condition.MemberSilent(silence)
}
