package testkit

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// CredentialID is the ID of credentials that tests give members.
const CredentialID = "aaaaaaaaaa"

// Joined gives a member the credential with CredentialID, as the hub does when its
// cluster joins.
func Joined(t testing.TB, c client.Client, member string) {
	t.Helper()
	credential := `{"status":{"credential":{"id":"` + CredentialID + `","clusterUID":"11111111-1111-1111-1111-111111111111","kind":"Certificate","issuedTime":"2026-01-01T00:00:00Z"}}}`
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member}}
	Must(t, c.Status().Patch(context.WithoutCancel(t.Context()), m, client.RawPatch("application/merge-patch+json", []byte(credential))))
}
