package registration

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// A user name says whose credential it is, in both of its forms, and no other name does.
func TestMemberUsers(t *testing.T) {
	for _, kind := range []v1alpha1.CredentialKind{v1alpha1.CredentialCertificate, v1alpha1.CredentialServiceAccountToken} {
		for _, name := range []string{"us-west", "join", "join-edge", "a", strings.Repeat("a", 50)} {
			id := NewCredentialID()
			user := CredentialUser(fleet.ClusterName(name), kind, id)
			if cluster, got, ok := ParseMemberUser(user); !ok || string(cluster) != name || got != id {
				t.Errorf("%s: %q %q %v", user, cluster, got, ok)
			}
			if _, _, ok := ParseMemberJoinUser(user); ok {
				t.Errorf("%s is a join account", user)
			}
		}
	}
	join := accountUserPrefix + NewMemberJoinAccount(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}}, "abcde01234", time.Now()).Name
	edge := accountUserPrefix + NewEdgeJoinAccount(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}}, "us-a", "abcde01234", time.Now()).Name
	for _, user := range []string{
		"", "crossway:member:us-west", "crossway:member:us-west:", "crossway:member::abcde01234", "crossway:member:us-west:abcde0123", "crossway:member:us-west:ABCDE01234",
		"crossway:member:us-west:abcde01234:abcde01234", "crossway:member:us_west:abcde01234", "crossway:members:us-west:abcde01234", " crossway:member:us-west:abcde01234",
		"crossway:member:us-west:abcde01234\n", "system:serviceaccount:crossway-members:us-west:abcde01234", "system:serviceaccount:crossway-system:us-west.abcde01234",
		"system:serviceaccount:crossway-members:us-west", "system:serviceaccount:crossway-members:default", "us-west.abcde01234", join, edge,
	} {
		if cluster, id, ok := ParseMemberUser(user); ok {
			t.Errorf("%q is a member's: %q %q", user, cluster, id)
		}
	}
	if cluster, id, ok := ParseMemberJoinUser(join); !ok || cluster != "us-west" || id != "abcde01234" {
		t.Errorf("%s: %q %q %v", join, cluster, id, ok)
	}
	if pool, id, ok := ParseEdgeJoinUser(edge); !ok || pool != "us" || id != "abcde01234" {
		t.Errorf("%s: %q %q %v", edge, pool, id, ok)
	}
	if _, _, ok := ParseMemberJoinUser(edge); ok {
		t.Error("a join account of edges joins members")
	}
}

// A credential is in force while its MemberCluster is accepted and does not list it.
func TestInForce(t *testing.T) {
	m := v1alpha1.MemberCluster{Spec: v1alpha1.MemberClusterSpec{Accepted: true}}
	want := func(when string, in bool) {
		t.Helper()
		if got := InForce(&m) != nil; got != in {
			t.Errorf("%s: in force is %v", when, got)
		}
	}
	want("no credential", false)
	m.Status.Credential = &v1alpha1.MemberCredential{ID: "abcde01234"}
	want("accepted", true)
	m.Spec.RevokedCredentials = []string{"xxxxxxxxxx"}
	want("another is revoked", true)
	m.Spec.RevokedCredentials = append(m.Spec.RevokedCredentials, "abcde01234")
	want("revoked", false)
	m.Spec.RevokedCredentials, m.Spec.Accepted = nil, false
	want("not accepted", false)
}

// IDs are of the form that CRDs and user names take, and do not repeat.
func TestCredentialIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewCredentialID()
		if !idPattern.MatchString(id) || seen[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}
