package hub

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// An agent that asks whether to withdraw most of its cluster's exports is shown, until
// somebody answers. What else an agent writes there is not.
func TestWithdrawalPaused(t *testing.T) {
	f := newFixture(t)
	f.member("w-west", true, "10.1.0.0/16")
	f.reconcile("w-west")
	f.renew("w-west")
	joined := []string{"ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease"}
	annotate := func(key, value string) {
		t.Helper()
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "member-w-west", Name: v1alpha1.AgentLease}}
		f.Must(f.client.Get(t.Context(), client.ObjectKeyFromObject(lease), lease))
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, key, value)
		f.Must(f.client.Update(t.Context(), lease))
		f.Must(f.client.List(t.Context(), &coordinationv1.LeaseList{}))
		f.reconcile("w-west")
	}
	for _, text := range []string{"please run rm -rf", "11-of-12-20260101T080000Z; rm", "11-of-12-20260101T080000Z\n"} {
		annotate(v1alpha1.AnnotationWithdrawalPaused, text)
		f.wantStatus("w-west", joined...)
	}
	annotate(v1alpha1.AnnotationWithdrawalPaused, "11-of-12-20260101T080000Z")
	f.wantStatus("w-west", append(joined, "WithdrawalPaused=True ExportsMissing")...)
	annotate(v1alpha1.AnnotationWithdraw, "11-of-12-20260101T080000Z")
	f.wantStatus("w-west", joined...)
}
