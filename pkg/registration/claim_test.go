package registration

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Of two agents with one credential at most one works: the one whose cluster the Lease
// names, or of two with one UID the one that holds it.
func TestClaim(t *testing.T) {
	self := Claimant{ClusterUID: "uid-1", Credential: "aaaaaaaaaa", Holder: "agent-1_boot-1"}
	for _, c := range []struct {
		what                    string
		uid, credential, holder string // of the Lease
		unchanged               time.Duration
		renewed                 bool
		want                    Claim
	}{
		{"its own Lease", "uid-1", "aaaaaaaaaa", "agent-1_boot-1", 0, true, ClaimWorks},
		{"one that was given back", "uid-1", "aaaaaaaaaa", "", 0, true, ClaimWorks},
		{"of another cluster", "uid-2", "aaaaaaaaaa", "agent-1_boot-1", time.Hour, false, ClaimCloned},
		{"of another cluster, given back", "uid-2", "aaaaaaaaaa", "", time.Hour, false, ClaimCloned},
		{"of an earlier joining of another cluster", "uid-2", "bbbbbbbbbb", "agent-7_boot-7", 0, true, ClaimWorks},
		{"of an earlier joining", "uid-1", "bbbbbbbbbb", "agent-1_boot-0", 0, false, ClaimWorks},
		{"of another agent, seen once", "uid-1", "aaaaaaaaaa", "agent-1_boot-2", 0, false, ClaimWaits},
		{"of another agent that may be dead", "uid-1", "aaaaaaaaaa", "agent-1_boot-2", HolderSilence - time.Second, false, ClaimWaits},
		{"of a dead agent", "uid-1", "aaaaaaaaaa", "agent-1_boot-2", HolderSilence, false, ClaimWorks},
		{"of another agent that lives", "uid-1", "aaaaaaaaaa", "agent-1_boot-2", 0, true, ClaimSameUID},
		{"of another agent that lived", "uid-1", "aaaaaaaaaa", "agent-1_boot-2", time.Hour, true, ClaimSameUID},
		{"without a cluster", "", "aaaaaaaaaa", "agent-1_boot-1", 0, false, ClaimWorks},
	} {
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationClusterUID: c.uid, v1alpha1.AnnotationCredential: c.credential}},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &c.holder},
		}
		if got := self.Claim(lease, c.unchanged, c.renewed); got != c.want {
			t.Errorf("a Lease %s: %d, want %d", c.what, got, c.want)
		}
	}
	if got := self.Claim(nil, 0, false); got != ClaimWorks {
		t.Errorf("no Lease: %d", got)
	}
}
