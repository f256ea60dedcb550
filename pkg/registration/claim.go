package registration

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
)

// HolderSilence is how long a Lease that another agent holds must stay unchanged before
// this one may take it: the other has then missed a renewal.
const HolderSilence = v1alpha1.AgentLeaseRenewInterval + 5*time.Second

// Claimant is an agent that wants to work for a member.
type Claimant struct {
	ClusterUID string // of its cluster
	Credential string // ID
	Holder     string // its name in the Lease: pod and machine
}

// Claim is what becomes of a claim.
type Claim uint8

const (
	ClaimWorks   Claim = iota // the agent works: it holds the Lease or may take it
	ClaimWaits                // another agent holds the Lease, and may be dead
	ClaimCloned               // another cluster has this credential
	ClaimSameUID              // another cluster has this credential, and the same UID
)

// Claim judges by the member's Lease whether an agent may work. unchanged is since when it
// has seen the Lease as it is, and renewed tells whether it has seen another agent renew it.
// nil: there is no Lease.
//
// A credential was made for one cluster, so of two that use it the one whose UID the Lease
// has is right. Two agents with one UID are told apart by their pods and machines. One
// that starts where another holds the Lease waits for its next renewal: a dead one does not
// renew, and an agent that ends in order leaves no holder behind.
func (c Claimant) Claim(lease *coordinationv1.Lease, unchanged time.Duration, renewed bool) Claim {
	if lease == nil || lease.Annotations[v1alpha1.AnnotationCredential] != c.Credential { // a later joining counts
		return ClaimWorks
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	switch uid := lease.Annotations[v1alpha1.AnnotationClusterUID]; {
	case uid != "" && uid != c.ClusterUID:
		return ClaimCloned
	case holder == "" || holder == c.Holder:
		return ClaimWorks
	case renewed:
		return ClaimSameUID
	case unchanged < HolderSilence:
		return ClaimWaits
	}
	return ClaimWorks
}

// Sign makes a Lease that of this agent.
func (c Claimant) Sign(lease *coordinationv1.Lease, now time.Time) {
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[v1alpha1.AnnotationClusterUID], lease.Annotations[v1alpha1.AnnotationCredential] = c.ClusterUID, c.Credential
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &c.Holder, ptr.To(metav1.NewMicroTime(now))
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(v1alpha1.AgentLeaseDuration / time.Second))
}
