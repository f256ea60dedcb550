package hub

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/registration"
)

// edgeJoining is a hub's API server with a pool and its CA, and an EdgeJoiner.
type edgeJoining struct {
	testkit.T
	client.Client
	pool   *v1alpha1.EdgePool
	joiner *EdgeJoiner
	clock  time.Time
}

func newEdgeJoining(t *testing.T, pool string) *edgeJoining {
	t.Helper()
	signer := newSigner(t)
	f := &edgeJoining{T: testkit.T{TB: t}, Client: signer.Client, clock: time.Now().Truncate(time.Second)}
	f.Must(signer.ensure(t.Context()))
	f.joiner = &EdgeJoiner{client: f.Client, namespace: signer.Namespace, now: func() time.Time { return f.clock }}
	f.pool = &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: pool},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
	f.Must(f.Create(t.Context(), f.pool))
	t.Cleanup(func() { f.Must(client.IgnoreNotFound(f.Delete(context.Background(), f.pool))) })
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MembersNamespace}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "test-certificates"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "test-certificates"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "test-certificates"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:" + v1alpha1.MembersNamespace}}},
	} {
		if err := f.Create(t.Context(), o); !apierrors.IsAlreadyExists(err) {
			f.Must(err)
		}
	}
	return f
}

// token makes the account of a join token.
func (f *edgeJoining) token(id string) {
	f.Helper()
	f.Must(f.Create(f.Context(), registration.NewEdgeJoinAccount(f.pool, "us-a", id, f.clock.Add(time.Hour))))
}

// asks creates a request as the account of a token, and has it decided.
func (f *edgeJoining) asks(id, name string) (key []byte, csr *certificatesv1.CertificateSigningRequest, err error) {
	f.Helper()
	if key, csr, err = f.request(id, name); err != nil {
		return nil, nil, err
	}
	_, err = f.joiner.Reconcile(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	f.Must(err)
	f.Must(f.Get(f.Context(), client.ObjectKey{Name: name}, csr))
	return key, csr, nil
}

// request creates a request as the account of a token.
func (f *edgeJoining) request(id, name string) (key []byte, csr *certificatesv1.CertificateSigningRequest, err error) {
	f.Helper()
	key, request, err := registration.NewEdgeRequest(rand.Reader)
	f.Must(err)
	user := "system:serviceaccount:" + v1alpha1.MembersNamespace + ":" + registration.EdgeJoinAccountName(f.pool.Name, id)
	c, err := client.New(envtestkit.As(f.TB, user, "system:serviceaccounts:"+v1alpha1.MembersNamespace, "system:authenticated"), client.Options{Scheme: f.Scheme()})
	f.Must(err)
	csr = &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: registration.EdgeSigner, Request: request, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}}
	return key, csr, c.Create(f.Context(), csr)
}

func (f *edgeJoining) denied(csr *certificatesv1.CertificateSigningRequest, reason, message string) {
	f.Helper()
	if len(csr.Status.Certificate) > 0 || len(csr.Status.Conditions) != 1 || csr.Status.Conditions[0].Type != certificatesv1.CertificateDenied ||
		csr.Status.Conditions[0].Reason != reason || !strings.Contains(csr.Status.Conditions[0].Message, message) {
		f.Errorf("want it denied, %s, %q; got %+v", reason, message, csr.Status.Conditions)
	}
}

// A request that was approved and not signed before its token ended is told so, once.
func TestApprovedAndNotSigned(t *testing.T) {
	f := newEdgeJoining(t, "unsigned")
	const id = "abcdefghi7"
	f.token(id)
	name := registration.EdgeRequestName("unsigned", id)
	_, csr, err := f.request(id, name)
	f.Must(err)
	_, err = decide(t.Context(), f, csr, condition.EdgeJoined("unsigned", id), f.clock) // by a hub that ended before it signed
	f.Must(err)
	f.clock = f.clock.Add(2 * time.Hour)
	for range 2 {
		_, err = f.joiner.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		f.Must(err)
	}
	f.Must(f.Get(t.Context(), client.ObjectKeyFromObject(csr), csr))
	if last := csr.Status.Conditions[len(csr.Status.Conditions)-1]; last.Type != certificatesv1.CertificateFailed || len(csr.Status.Conditions) != 2 || len(csr.Status.Certificate) > 0 {
		t.Errorf("conditions %+v", csr.Status.Conditions)
	}
}

// A join token gets one certificate, for its pool and zone and under its own ID, and its account is deleted afterwards.
func TestEdgeJoins(t *testing.T) {
	f := newEdgeJoining(t, "joins")
	const id = "abcdefghi1"
	f.token(id)
	name := registration.EdgeRequestName("joins", id)
	key, csr, err := f.asks(id, name)
	f.Must(err)
	if !isApproved(csr) || csr.Status.Conditions[0].Reason != "EdgeJoined" {
		t.Fatalf("not signed: %+v", csr.Status)
	}
	data, err := registration.EdgeSecretData(key, csr.Status.Certificate)
	f.Must(err)
	pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
	f.Must(err)
	got, err := registration.EdgeIdentityOf(pair.Leaf)
	want := registration.EdgeIdentity{Pool: "joins", Region: "us", Zone: "us-a", PoolUID: string(f.pool.UID), Credential: id}
	if err != nil || got != want || len(data["ca.crt"]) == 0 {
		t.Errorf("the certificate is for %+v, %v; want %+v", got, err, want)
	}

	if _, _, err := f.asks(id, name); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second edge with the token: %v", err)
	}
	_, second, err := f.asks(id, name+"-2")
	f.Must(err)
	f.denied(second, "Malformed", "a join token makes one request, "+name)

	account := joinAccountKey("joins", id)
	again, err := f.joiner.Reconcile(t.Context(), reconcile.Request{NamespacedName: account})
	f.Must(err)
	f.Must(f.Get(t.Context(), account, &corev1.ServiceAccount{}))
	f.clock = f.clock.Add(again.RequeueAfter)
	_, err = f.joiner.Reconcile(t.Context(), reconcile.Request{NamespacedName: account})
	f.Must(err)
	if err := f.Get(t.Context(), account, &corev1.ServiceAccount{}); !apierrors.IsNotFound(err) || again.RequeueAfter > afterJoining {
		t.Errorf("the account of a used token is there after %s: %v", again.RequeueAfter, err)
	}
}

// A token whose request is gone, as Kubernetes deletes it after an hour, gets no other certificate.
func TestEdgeTokenIsUsedOnce(t *testing.T) {
	f := newEdgeJoining(t, "once")
	const id = "abcdefghi3"
	name := registration.EdgeRequestName("once", id)
	f.token(id)
	_, csr, err := f.asks(id, name)
	f.Must(err)
	f.Must(f.Delete(t.Context(), csr))
	_, csr, err = f.asks(id, name)
	f.Must(err)
	f.denied(csr, "TokenUsed", "crossway revoke --edge once --credential "+id)
	_, err = f.joiner.Reconcile(t.Context(), reconcile.Request{NamespacedName: joinAccountKey("once", id)})
	f.Must(err)
	if err := f.Get(t.Context(), joinAccountKey("once", id), &corev1.ServiceAccount{}); !apierrors.IsNotFound(err) {
		t.Error("its account stays: ", err)
	}
}

// A token that has ended, is revoked, or is of an earlier pool of the name is denied, with what to do.
func TestEdgeJoiningIsDenied(t *testing.T) {
	f := newEdgeJoining(t, "denies")
	ask := func(id string) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		_, csr, err := f.asks(id, registration.EdgeRequestName("denies", id))
		f.Must(err)
		return csr
	}
	f.denied(ask("neverthere"), "TokenEnded", "crossway token create --edge denies")
	f.token("revoked001")
	f.pool.Spec.RevokedCredentials = []string{"revoked001"}
	f.Must(f.Update(t.Context(), f.pool))
	f.denied(ask("revoked001"), "Revoked", "spec.revokedCredentials")
	f.token("earlier001")
	f.Must(f.Delete(t.Context(), f.pool))
	f.denied(ask("earlier001"), "NoEdgePool", `EdgePool "denies" does not exist`)
	f.pool.ResourceVersion, f.pool.UID, f.pool.Spec.RevokedCredentials = "", "", nil
	f.Must(f.Create(t.Context(), f.pool))
	_, csr, err := f.asks("earlier001", registration.EdgeRequestName("denies", "earlier001")+"x")
	f.Must(err)
	f.denied(csr, "TokenEnded", "has ended")
	f.token("abcdefghi2")
	f.clock = f.clock.Add(time.Hour)
	f.denied(ask("abcdefghi2"), "TokenEnded", "has ended")
}
