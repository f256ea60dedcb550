package hub

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
)

// blind is a cache that does not have a MemberCluster yet.
type blind struct {
	client.Client
}

func (b blind) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	if _, ok := o.(*v1alpha1.MemberCluster); ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "memberclusters"}, key.Name)
	}
	return b.Client.Get(ctx, key, o, options...)
}

// The join account of a MemberCluster that the cache does not have yet stays.
func TestTokenIsThereBeforeItsMember(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("b-west", false)
	_, account := f.token("b-west", time.Hour)
	f.seen(account)
	f.joiner.client = blind{f.joiner.client}
	_, err := f.joiner.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "b-west"}})
	f.Must(err)
	f.Must(f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(account), account))
}

// Another cluster that gets a name after a revocation begins without exports: those of the
// first would count as its own until it looks. A cluster that joins again keeps its own.
func TestNameGoesToAnotherCluster(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("n-west", true, "10.1.0.0/16")
	joins := func(id, uid string) {
		t.Helper()
		token, _ := f.token("n-west", time.Hour)
		csr := f.ask(token, "n-west", id, uid)
		f.judge("n-west")
		f.wantCSR(csr, "Approved Accepted")
	}
	revoke := func(id string) {
		t.Helper()
		m := f.get("n-west")
		m.Spec.RevokedCredentials = append(m.Spec.RevokedCredentials, id)
		f.Must(f.client.Update(t.Context(), m))
		f.judge("n-west")
	}
	joins("aaaaaaaaaa", firstUID)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "member-n-west", Name: v1alpha1.AgentLease, Annotations: map[string]string{
		v1alpha1.AnnotationCredential: "aaaaaaaaaa", v1alpha1.AnnotationClusterUID: firstUID}}}
	f.Must(f.client.Create(t.Context(), lease))
	f.seen(lease)
	own := export(f.fixture, "n-west", "web")
	revoke("aaaaaaaaaa")
	joins("bbbbbbbbbb", firstUID)
	f.Must(f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(own), own))
	revoke("bbbbbbbbbb")
	joins("cccccccccc", secondUID)
	if err := f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(own), own); !apierrors.IsNotFound(err) {
		t.Errorf("the export of the former cluster: %v", err)
	}
	own = export(f.fixture, "n-west", "web") // before its Lease is seen
	f.judge("n-west")
	f.Must(f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(own), own))
}

// A name that goes to another cluster: nothing of the first is deleted while its agent may
// still export, as it does when the Registrar is slower than the Joiner.
func TestFormerAgentIsOutBeforeItsExportsGo(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("o-west", true, "10.1.0.0/16")
	token, _ := f.token("o-west", time.Hour)
	f.ask(token, "o-west", "aaaaaaaaaa", firstUID)
	f.judge("o-west")
	agent := f.as("o-west", "aaaaaaaaaa")
	f.mayList(agent, "o-west", true)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "member-o-west", Name: v1alpha1.AgentLease, Annotations: map[string]string{
		v1alpha1.AnnotationCredential: "aaaaaaaaaa", v1alpha1.AnnotationClusterUID: firstUID}}}
	f.Must(agent.Create(t.Context(), lease))
	f.seen(lease)
	own := export(f.fixture, "o-west", "web")
	m := f.get("o-west")
	m.Spec.RevokedCredentials = append(m.Spec.RevokedCredentials, "aaaaaaaaaa")
	f.Must(f.client.Update(t.Context(), m))
	token, _ = f.token("o-west", time.Hour)
	csr := f.ask(token, "o-west", "bbbbbbbbbb", secondUID)
	f.Must(f.client.List(t.Context(), &corev1.ServiceAccountList{}))
	f.awaitCaches()
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: "o-west"}}
	result, err := f.joiner.Reconcile(t.Context(), request)
	f.Must(err)
	if result.RequeueAfter != accessEnds {
		t.Errorf("the Joiner looks again after %s, want %s", result.RequeueAfter, accessEnds)
	}
	f.wantCSR(csr)
	f.Must(f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(own), own))
	f.mayList(agent, "o-west", false)
	f.judge("o-west")
	f.wantCSR(csr, "Approved Accepted")
	if err := f.joiner.direct.Get(t.Context(), client.ObjectKeyFromObject(own), own); !apierrors.IsNotFound(err) {
		t.Errorf("the export of the former cluster: %v", err)
	}
	f.mayList(f.as("o-west", "bbbbbbbbbb"), "o-west", true)
}
