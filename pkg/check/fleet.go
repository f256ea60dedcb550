package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

func members(f Facts) []Finding {
	if len(f.Members) == 0 {
		return []Finding{warning("members", "crossway token create <member> --region <region>", "the fleet has none")}
	}
	var all []v1alpha1.MemberCluster
	for _, m := range f.Members {
		all = append(all, m.MemberCluster)
	}
	admissions := registration.Admissions(all, hubCIDRs(f.Deployment))
	var out []Finding
	for _, m := range f.Members {
		out = append(out, member(f, m, admissions[fleet.ClusterName(m.Name)])...)
	}
	return out
}

// member are the findings of one member: what is wrong, or one that says it is well.
func member(f Facts, m Member, admission registration.Admission) []Finding {
	what := "MemberCluster " + m.Name
	if !m.Spec.Accepted {
		return []Finding{notAccepted(what, m)}
	}
	out := conditions(what, m.Status.Conditions,
		[]string{condition.MemberJoinedType, condition.MemberReachableType, condition.MemberExportsAcceptedType}, badOfMembers)
	if meta.FindStatusCondition(m.Status.Conditions, condition.MemberJoinedType) == nil {
		out = append(out, wrong(what, "is the hub ready?", "is accepted, and the hub has not said anything about it"))
	}
	if len(admission.Faults) > 0 && meta.IsStatusConditionTrue(m.Status.Conditions, condition.MemberExportsAcceptedType) {
		out = append(out, wrong(what, "correct spec.endpointCIDRs", "%s", strings.Join(admission.Faults, "; ")))
	}
	out = append(out, credential(f, what, m)...)
	if v := m.Lease[v1alpha1.AnnotationAgentVersion]; known(f.Version) && v != "" && v != f.Version {
		out = append(out, warning(what, "upgrade its agent: crossway join --context <its context> without a token", "its agent is version %s, this command %s", v, f.Version))
	}
	if len(out) == 0 {
		out = append(out, ok(what, "region %s, reachable, %s, %s%s", m.Spec.Region, count(int(m.Status.Exports), "export"), count(int(m.Status.Endpoints), "endpoint"), until(f, m)))
	}
	return out
}

// badOfMembers are the types of conditions of a MemberCluster that are wrong while True.
var badOfMembers = []string{condition.MemberWithdrawalPaused, condition.MemberClockDiffers, condition.MemberIdentityConflict}

// notAccepted is the finding of a cluster that is no member.
func notAccepted(what string, m Member) Finding {
	if asks := m.Status.JoinRequest; asks != nil {
		return warning(what, "crossway accept "+m.Name, "cluster %s has asked to join, %s", asks.ClusterUID, asks.RequestedTime.UTC().Format(time.RFC3339))
	}
	return ok(what, "is not accepted: it offers nothing, and its agent is refused")
}

// credentialWarning is how long before the end of a member's credential that is worth
// a word: agents renew it much earlier.
const credentialWarning = time.Hour

// credential are the findings of what a member's agent authenticates with.
func credential(f Facts, what string, m Member) []Finding {
	has := registration.InForce(&m.MemberCluster)
	switch {
	case has == nil && m.Status.JoinRequest != nil:
		return []Finding{warning(what, "if it stays so: the hub's logs", "cluster %s has asked to join; the hub has not answered", m.Status.JoinRequest.ClusterUID)}
	case has == nil:
		return []Finding{wrong(what, "crossway token create "+m.Name+", and crossway join in that cluster", "is accepted, and no cluster has joined")}
	case has.ExpirationTime == nil:
		return nil
	}
	left, at := has.ExpirationTime.Sub(f.Now), has.ExpirationTime.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return []Finding{wrong(what, "crossway token create "+m.Name+", and crossway join in that cluster", "its credential ended %s: its agent was not there to renew it", at)}
	case left < credentialWarning:
		return []Finding{warning(what, "see the log of its agent: it renews the credential much earlier", "its credential ends %s, in %s", at, days(left))}
	}
	return nil
}

// until continues what is said of a member that is well.
func until(f Facts, m Member) string {
	if has := registration.InForce(&m.MemberCluster); has != nil && has.ExpirationTime != nil {
		return ", certificate for " + days(has.ExpirationTime.Sub(f.Now)) + " more"
	}
	return ""
}

func edges(f Facts) []Finding {
	if len(f.Pools) == 0 {
		return []Finding{warning("edges", "create an EdgePool for each region with clients (docs/fleet-admin.md)", "the fleet has no EdgePool, so no Gateway has an address")}
	}
	var out []Finding
	for _, p := range f.Pools {
		what := "EdgePool " + p.Name
		found := conditions(what, p.Status.Conditions, goodOfPools, nil)
		if len(found) == 0 && p.Status.Edges == 0 {
			found = []Finding{wrong(what, "crossway token create --edge "+p.Name+" --zone <zone>, and crossway join --edge where they run", "no edge is connected")}
		}
		found = append(found, edgeCredentials(f, what, p)...)
		if len(found) == 0 {
			found = []Finding{ok(what, "%s connected", count(int(p.Status.Edges), "edge"))}
		}
		out = append(out, found...)
	}
	return out
}

// goodOfPools are the types of conditions of an EdgePool that are wrong unless True.
var goodOfPools = []string{condition.EdgePoolReadyType, condition.EdgePoolConfigurationType, condition.EdgePoolCertificatesType}

// edgeCredentials are the findings of the credentials with which edges are connected.
func edgeCredentials(f Facts, what string, p v1alpha1.EdgePool) (out []Finding) {
	for _, c := range p.Status.Credentials {
		if slices.Contains(p.Spec.RevokedCredentials, c.ID) && c.Edges > 0 {
			out = append(out, wrong(what, "is the hub ready? It disconnects them", "%s connected with credential %s, which is revoked", count(int(c.Edges), "edge"), c.ID))
			continue
		}
		if found := end(what, c.ExpirationTime.Time, f.Now, registration.DefaultEdgeLife); found.Level != OK {
			found.Message = "credential " + c.ID + ": certificate " + found.Message
			found.Do = "see the log of these edges' renewal, or join them again: crossway token create --edge " + p.Name
			out = append(out, found)
		}
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
