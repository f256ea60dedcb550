package registration

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// MaxClockDifference is how far a clock may be off: the signer of the hub's cluster
// makes certificates valid from 5 min before.
const MaxClockDifference = 5 * time.Minute

// Decision is what becomes of a request.
type Decision uint8

// Decisions about a request.
const (
	JoinWaits    Decision = iota // until its MemberCluster is accepted
	JoinApproved                 // its requester gets the credential
	JoinDenied
)

// JoinFacts is what a decision about a request depends on.
type JoinFacts struct {
	Member  *v1alpha1.MemberCluster // nil: there is none
	Account *corev1.ServiceAccount  // the join account that asks; nil: it is gone
	// Waiting is the request of the same name that came first and waits; nil: none.
	Waiting *v1alpha1.MemberJoinRequest
	Now     time.Time
}

// JudgeJoin decides about a request for a certificate. denied is set for JoinDenied.
func JudgeJoin(r JoinRequest, f JoinFacts) (decision Decision, denied condition.Condition) {
	deny := func(c condition.Condition) (Decision, condition.Condition) { return JoinDenied, c }
	switch {
	case r.Fault != "":
		return deny(condition.JoinMalformed(r.Fault))
	case f.Member == nil, f.Member.DeletionTimestamp != nil:
		return deny(condition.JoinWithoutMember(r.Cluster))
	case Revoked(f.Member, r.ID), r.Renews != "" && Revoked(f.Member, r.Renews):
		return deny(condition.JoinRevoked(r.Cluster))
	case r.Renews != "":
		return judgeRenewal(r, f)
	case f.Account == nil, f.Account.DeletionTimestamp != nil, string(f.Account.UID) != r.AccountUID, !MadeFor(f.Account, f.Member), !f.Now.Before(TokenEnds(f.Account)):
		return deny(condition.JoinTokenEnded(r.Cluster))
	}
	if uid, id := UsedBy(f.Account); uid != "" && (uid != r.ClusterUID || id != r.ID) {
		return deny(condition.JoinTokenUsed(r.Cluster, uid))
	}
	if ahead := r.AgentTime.Sub(r.Created); !r.AgentTime.IsZero() && ahead.Abs() > MaxClockDifference {
		return deny(condition.JoinClockDiffers(ahead))
	}
	if has := InForce(f.Member); has != nil && has.ClusterUID != r.ClusterUID {
		return deny(condition.JoinNameTaken(r.Cluster, has.ClusterUID, r.ClusterUID))
	}
	if w := f.Waiting; w != nil && (w.ClusterUID != r.ClusterUID || w.ID != r.ID) {
		return deny(condition.JoinAnotherWaits(r.Cluster, w.ClusterUID))
	}
	if !f.Member.Spec.Accepted {
		return JoinWaits, condition.Condition{}
	}
	return JoinApproved, condition.Condition{}
}

// judgeRenewal decides about a request of a credential, for itself. Its clock does not
// matter: an agent that works would otherwise end by a clock.
func judgeRenewal(r JoinRequest, f JoinFacts) (Decision, condition.Condition) {
	switch has := InForce(f.Member); {
	case has == nil, has.ID != r.Renews:
		return JoinDenied, condition.JoinNotInForce(r.Cluster)
	case r.ID != r.Renews:
		return JoinDenied, condition.JoinMalformed("a renewal is for the user that asks for it")
	case has.ClusterUID != r.ClusterUID:
		return JoinDenied, condition.JoinNameTaken(r.Cluster, has.ClusterUID, r.ClusterUID)
	}
	return JoinApproved, condition.Condition{}
}

// UsedBy is the cluster and the credential that a join account was used for; empty: not yet.
func UsedBy(account *corev1.ServiceAccount) (clusterUID, id string) {
	return account.Annotations[v1alpha1.AnnotationClusterUID], account.Annotations[v1alpha1.AnnotationCredential]
}

// Claimed is a join account that was used for a request.
func Claimed(account *corev1.ServiceAccount, r JoinRequest) *corev1.ServiceAccount {
	account = account.DeepCopy()
	metav1.SetMetaDataAnnotation(&account.ObjectMeta, v1alpha1.AnnotationClusterUID, r.ClusterUID)
	metav1.SetMetaDataAnnotation(&account.ObjectMeta, v1alpha1.AnnotationCredential, r.ID)
	return account
}

// JoinPlan is what becomes of all requests of one member.
type JoinPlan struct {
	// Credential and JoinRequest are those of the MemberCluster's status.
	Credential  *v1alpha1.MemberCredential
	JoinRequest *v1alpha1.MemberJoinRequest
	// Verdicts are about requests that were not decided before, in the order in which they are judged.
	Verdicts []JoinVerdict
}

// JoinVerdict is the decision about one request. Condition is that of its CSR, where it is decided.
type JoinVerdict struct {
	Request   JoinRequest
	Decision  Decision
	Condition condition.Condition
}

// UsesToken tells whether nobody else gets a credential by the join token of the request:
// after one that may get it, and after one that is told the UID of another cluster, which
// could be asked for next. A UID is no secret, and the requester's word.
func (v JoinVerdict) UsesToken() bool {
	return v.Decision != JoinDenied || v.Condition.Reason == condition.ReasonNameTaken || v.Condition.Reason == condition.ReasonAnotherWaits
}

// PlanJoin decides about the requests of one member, and approves or denies at most limit
// of them at a time. Those that wait do not count: others would never have their turn.
// accounts are the member's join accounts by name, kind is what a new credential is.
func PlanJoin(member *v1alpha1.MemberCluster, requests []JoinRequest, accounts map[string]*corev1.ServiceAccount, kind v1alpha1.CredentialKind, now time.Time, limit int) JoinPlan {
	var plan JoinPlan
	if member != nil {
		member = member.DeepCopy() // its status goes on with each decision
		member.Status.Credential = InForce(member)
	}
	accounts = maps.Clone(accounts)
	undecided := slices.DeleteFunc(slices.Clone(requests), func(r JoinRequest) bool { return r.Decided })
	sortJoinRequests(undecided, member)
	for _, r := range undecided {
		if limit == 0 {
			break
		}
		v := JoinVerdict{Request: r}
		v.Decision, v.Condition = JudgeJoin(r, JoinFacts{Member: member, Account: accounts[r.Account], Waiting: plan.JoinRequest, Now: now})
		switch v.Decision {
		case JoinWaits:
			plan.JoinRequest = r.asks()
		case JoinApproved:
			v.Condition = approve(member, r, kind, now)
			limit--
		case JoinDenied:
			limit--
		}
		if account := accounts[r.Account]; account != nil && v.UsesToken() {
			accounts[r.Account] = Claimed(account, r)
		}
		plan.Verdicts = append(plan.Verdicts, v)
	}
	if member != nil {
		plan.Credential = member.Status.Credential
		plan.extend(requests)
	}
	return plan
}

// approve gives a member the credential of a request. A renewal keeps it.
func approve(member *v1alpha1.MemberCluster, r JoinRequest, kind v1alpha1.CredentialKind, now time.Time) condition.Condition {
	if has := member.Status.Credential; has == nil || has.ID != r.ID {
		member.Status.Credential = &v1alpha1.MemberCredential{ID: r.ID, ClusterUID: r.ClusterUID, Kind: kind, IssuedTime: timeOf(now)}
	} else if has.Kind != kind {
		changed := *has
		changed.Kind, changed.ExpirationTime = kind, nil
		member.Status.Credential = &changed
	}
	if kind == v1alpha1.CredentialServiceAccountToken {
		return condition.JoinApprovedWithToken(MemberAccount(r.Cluster, r.ID))
	}
	return condition.JoinApproved(r.Cluster)
}

// extensionStep is by how much a certificate must end later to be noted: else a member that
// renews as fast as it can would have its status written each time.
const extensionStep = time.Minute

// extend notes the end of the certificate that was issued last.
func (p *JoinPlan) extend(requests []JoinRequest) {
	if p.Credential == nil || p.Credential.Kind != v1alpha1.CredentialCertificate {
		return
	}
	for _, r := range requests {
		if has := p.Credential.ExpirationTime; r.ID == p.Credential.ID && !r.ExpirationTime.IsZero() && (has == nil || has.Add(extensionStep).Before(r.ExpirationTime)) {
			extended := *p.Credential
			end := timeOf(r.ExpirationTime)
			extended.ExpirationTime = &end
			p.Credential = &extended
		}
	}
}

// asks is a request as its MemberCluster's status shows it.
func (r JoinRequest) asks() *v1alpha1.MemberJoinRequest {
	return &v1alpha1.MemberJoinRequest{ID: r.ID, ClusterUID: r.ClusterUID, EndpointCIDRs: r.EndpointCIDRs, RequestedTime: timeOf(r.Created), CSR: r.Name}
}

// sortJoinRequests puts requests of one member in the order in which they are judged:
// renewals of its credential, so that a flood of others does not keep it out; who waits
// already; then as they came, those of former credentials last.
func sortJoinRequests(all []JoinRequest, member *v1alpha1.MemberCluster) {
	rank := func(r JoinRequest) int {
		switch {
		case member == nil:
		case member.Status.Credential != nil && r.Renews == member.Status.Credential.ID:
			return 0
		case member.Status.JoinRequest != nil && r.Name == member.Status.JoinRequest.CSR && r.ID == member.Status.JoinRequest.ID:
			return 1
		}
		if r.Renews != "" { // by a credential that is not in force, which can only be denied
			return 3
		}
		return 2
	}
	slices.SortFunc(all, func(a, b JoinRequest) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
}

const (
	// decidedLife is how long a decided request stays, for its requester to read it.
	decidedLife = 10 * time.Minute
	// maxDecided is how many of one member stay, of approved and of denied ones;
	// MaxUndecided how many wait for a decision.
	maxDecided   = 10
	MaxUndecided = 50
)

// SuperfluousRequests are the names of a member's requests that are to be deleted: those
// that were decided a while ago, and what a flood has more of than one cluster needs. No
// quota bounds the number of objects outside of namespaces.
func SuperfluousRequests(requests []JoinRequest, member *v1alpha1.MemberCluster, now time.Time) []string {
	var names []string
	var approved, denied, undecided []JoinRequest
	for _, r := range requests {
		switch {
		case !r.Decided:
			undecided = append(undecided, r)
		case r.Denied:
			denied = append(denied, r)
		default:
			approved = append(approved, r)
		}
	}
	for _, decided := range [][]JoinRequest{approved, denied} {
		slices.SortFunc(decided, func(a, b JoinRequest) int {
			return cmp.Or(b.DecidedAt.Compare(a.DecidedAt), strings.Compare(a.Name, b.Name))
		})
		for i, r := range decided {
			if i >= maxDecided || now.Sub(r.DecidedAt) >= decidedLife {
				names = append(names, r.Name)
			}
		}
	}
	sortJoinRequests(undecided, member)
	for _, r := range undecided[min(MaxUndecided, len(undecided)):] {
		names = append(names, r.Name)
	}
	return names
}

// AccountEnded tells whether a join account is to be deleted: its token has ended, its
// MemberCluster is gone or another, or its cluster uses the credential that it got.
func AccountEnded(account *corev1.ServiceAccount, member *v1alpha1.MemberCluster, used string, now time.Time) bool {
	_, id := UsedBy(account)
	switch {
	case member == nil, member.DeletionTimestamp != nil, !MadeFor(account, member), !now.Before(TokenEnds(account)):
		return true
	case id == "":
		return false
	}
	return Revoked(member, id) || member.Status.Credential != nil && member.Status.Credential.ID == id && used == id
}
