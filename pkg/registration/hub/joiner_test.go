package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// joinFixture is a hub with a Joiner, whose clock goes.
type joinFixture struct {
	*fixture
	joiner *Joiner
}

func newJoinFixture(t *testing.T, kind v1alpha1.CredentialKind) *joinFixture {
	t.Helper()
	f := &joinFixture{fixture: newFixture(t)}
	f.unjoined = true
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MembersNamespace}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "crossway-certificates"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "crossway-certificates"},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "crossway-certificates"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: v1alpha1.MembersGroup},
				{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:" + v1alpha1.MembersNamespace}}},
	} {
		f.Must(client.IgnoreAlreadyExists(f.client.Create(t.Context(), o)))
	}
	f.newJoiner(kind)
	t.Cleanup(f.deleteRequests)
	return f
}

// newJoiner is a hub that starts anew.
func (f *joinFixture) newJoiner(kind v1alpha1.CredentialKind) {
	f.Helper()
	var err error
	f.joiner, err = NewJoiner(f.hub, kind)
	f.Must(err)
	f.client, f.registrar.client = f.joiner.client, f.joiner.client // which waits for what any of them wrote
}

func (f *joinFixture) deleteRequests() {
	f.Must(f.joiner.direct.DeleteAllOf(context.Background(), &certificatesv1.CertificateSigningRequest{}))
	f.Must(f.joiner.direct.DeleteAllOf(context.Background(), &corev1.ServiceAccount{}, client.InNamespace(v1alpha1.MembersNamespace)))
}

// seen waits until the cache has an object as another client wrote it.
func (f *joinFixture) seen(o client.Object) {
	f.Helper()
	have := o.DeepCopyObject().(client.Object)
	f.Eventually("the cache has "+o.GetName(), func() bool {
		return f.hub.GetCache().Get(f.Context(), client.ObjectKeyFromObject(o), have) == nil && have.GetResourceVersion() == o.GetResourceVersion()
	})
}

// token makes a join token, as crossway token create does, and returns a client of its account.
func (f *joinFixture) token(member string, life time.Duration) (*rest.Config, *corev1.ServiceAccount) {
	f.Helper()
	account := registration.NewMemberJoinAccount(f.get(member), registration.NewCredentialID(), time.Now().Add(life))
	f.Must(f.client.Create(f.Context(), account))
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}
	f.Must(f.client.SubResource("token").Create(f.Context(), account, request))
	config := envtestkit.Config(f.TB)
	config.CertData, config.KeyData, config.BearerToken = nil, nil, request.Status.Token
	return config, account
}

// ask makes a CSR as the agent of a cluster does.
func (f *joinFixture) ask(as *rest.Config, member, id, uid string) *certificatesv1.CertificateSigningRequest {
	f.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.Must(err)
	subject := pkix.Name{CommonName: registration.MemberUser(fleet.ClusterName(member), id), Organization: []string{v1alpha1.MembersGroup}}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	f.Must(err)
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "crossway-" + member + "-" + registration.NewCredentialID(), Annotations: map[string]string{
			v1alpha1.AnnotationClusterUID: uid, v1alpha1.AnnotationEndpointCIDRs: "10.1.0.0/16", v1alpha1.AnnotationAgentTime: time.Now().Format(time.RFC3339)}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: ptr.To[int32](86400),
			Usages:  []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	}
	c, err := client.New(as, client.Options{Scheme: f.scheme})
	f.Must(err)
	f.Must(c.Create(f.Context(), csr))
	f.seen(csr)
	return csr
}

// judge has the Joiner, and then the Registrar, look at a member.
func (f *joinFixture) judge(member string) reconcile.Result {
	f.Helper()
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: member}}
	f.Must(f.client.List(f.Context(), &corev1.ServiceAccountList{}))
	f.awaitCaches()
	var result reconcile.Result
	f.Eventually("all is decided", func() bool {
		var err error
		result, err = f.joiner.Reconcile(f.Context(), request)
		f.Must(err)
		return result.RequeueAfter == 0 || result.RequeueAfter >= time.Second // else the cache was late
	})
	f.clock = time.Now()
	_, err := f.registrar.Reconcile(f.Context(), request)
	f.Must(err)
	return result
}

// wantCSR checks the conditions of a CSR, each "Type reason", and returns the last one's message.
func (f *joinFixture) wantCSR(csr *certificatesv1.CertificateSigningRequest, want ...string) string {
	f.Helper()
	f.Must(f.client.Get(f.Context(), client.ObjectKeyFromObject(csr), csr))
	var got []string
	message := ""
	for _, c := range csr.Status.Conditions {
		got, message = append(got, string(c.Type)+" "+c.Reason), c.Message
	}
	if !slices.Equal(got, want) {
		f.Errorf("%s: %q %s, want %q", csr.Name, got, message, want)
	}
	return message
}

// as is the hub as an agent with a certificate sees it.
func (f *joinFixture) as(member, id string) client.Client {
	f.Helper()
	c, err := client.New(envtestkit.As(f.TB, registration.MemberUser(fleet.ClusterName(member), id), v1alpha1.MembersGroup), client.Options{Scheme: f.scheme})
	f.Must(err)
	return c
}

// mayList asks until the API server's authorizer answers as wanted.
func (f *joinFixture) mayList(c client.Client, member string, want bool) {
	f.Helper()
	f.Eventually(fmt.Sprintf("access to member-%s is %v", member, want), func() bool {
		return (c.List(f.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-"+member)) == nil) == want
	})
}

const firstUID, secondUID = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"

// A cluster joins with a token: its request is shown, an admin accepts it, it gets its
// certificate and access, and its first sign of life ends the token. It renews its
// credential. After it is revoked, neither its key nor the token is let in, also when the
// cluster was accepted again.
func TestJoinAndRevoke(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("j-west", false, "10.1.0.0/16")
	token, account := f.token("j-west", time.Hour)
	id := registration.NewCredentialID()
	csr := f.ask(token, "j-west", id, firstUID)
	f.judge("j-west")
	f.wantCSR(csr)
	asks := f.get("j-west").Status.JoinRequest
	if asks == nil || asks.ClusterUID != firstUID || asks.CSR != csr.Name || !slices.Equal(asks.EndpointCIDRs, []string{"10.1.0.0/16"}) {
		t.Fatalf("%+v", asks)
	}

	if c := meta.FindStatusCondition(f.get("j-west").Status.Conditions, "Joined"); c.Reason != "WaitsForAcceptance" || !strings.Contains(c.Message, firstUID) {
		t.Errorf("%+v", c)
	}

	f.accept("j-west", true)
	f.judge("j-west")
	f.wantCSR(csr, "Approved Accepted")
	m := f.get("j-west")
	if c := m.Status.Credential; c == nil || c.ID != id || c.ClusterUID != firstUID || m.Status.JoinRequest != nil {
		t.Fatalf("%+v", m.Status)
	}
	agent := f.as("j-west", id)
	f.mayList(agent, "j-west", true)

	stolen := f.ask(token, "j-west", registration.NewCredentialID(), secondUID)
	f.judge("j-west")
	if message := f.wantCSR(stolen, "Denied TokenUsed"); !strings.Contains(message, firstUID) {
		t.Error(message)
	}

	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "member-j-west", Name: v1alpha1.AgentLease, Annotations: map[string]string{v1alpha1.AnnotationCredential: id}}}
	f.Must(agent.Create(t.Context(), lease))
	f.seen(lease)
	f.judge("j-west")
	if err := f.client.Get(t.Context(), client.ObjectKeyFromObject(account), account); !apierrors.IsNotFound(err) {
		t.Error("the account of a token that was used stays: ", err)
	}
	renewal := f.ask(envtestkit.As(t, registration.MemberUser("j-west", id), v1alpha1.MembersGroup), "j-west", id, firstUID)
	f.judge("j-west")
	f.wantCSR(renewal, "Approved Accepted")

	m = f.get("j-west")
	m.Spec.Accepted, m.Spec.RevokedCredentials = false, []string{id}
	f.Must(f.client.Update(t.Context(), m))
	f.judge("j-west")
	f.mayList(agent, "j-west", false)
	if c := f.get("j-west").Status.Credential; c != nil {
		t.Errorf("%+v", c)
	}
	f.accept("j-west", true)
	renewal = f.ask(envtestkit.As(t, registration.MemberUser("j-west", id), v1alpha1.MembersGroup), "j-west", id, firstUID)
	f.judge("j-west")
	f.wantCSR(renewal, "Denied Revoked")
	f.mayList(agent, "j-west", false)
}

// Kubernetes authorises a watch once, when it is opened. One that a member opened before
// it was revoked shows nothing from then on: it is in the member's own namespace, where
// nobody writes any more, whatever the fleet does. Writes and new requests are refused.
func TestOpenWatchOfARevokedMember(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("o-west", true, "10.1.0.0/16")
	token, _ := f.token("o-west", time.Hour)
	f.ask(token, "o-west", "aaaaaaaaaa", firstUID)
	f.judge("o-west")
	agent, err := client.NewWithWatch(envtestkit.As(t, registration.MemberUser("o-west", "aaaaaaaaaa"), v1alpha1.MembersGroup), client.Options{Scheme: f.scheme})
	f.Must(err)
	f.mayList(agent, "o-west", true)
	own := export(f.fixture, "o-west", "web")
	var watches []watch.Interface
	for _, list := range []client.ObjectList{&v1alpha1.MemberExportList{}, &discoveryv1.EndpointSliceList{}} {
		w, err := agent.Watch(t.Context(), list, client.InNamespace("member-o-west"))
		f.Must(err)
		t.Cleanup(w.Stop)
		watches = append(watches, w)
	}
	if e := <-watches[0].ResultChan(); e.Type != watch.Added {
		t.Fatalf("%+v", e)
	}

	m := f.get("o-west")
	m.Spec.Accepted, m.Spec.RevokedCredentials = false, []string{"aaaaaaaaaa"}
	f.Must(f.client.Update(t.Context(), m))
	f.judge("o-west")
	f.mayList(agent, "o-west", false)
	own.Spec.ExportedAt = metav1.Now()
	if err := agent.Update(t.Context(), own); !apierrors.IsForbidden(err) {
		t.Error("a revoked member writes: ", err)
	}
	for _, namespace := range []string{"", v1alpha1.FleetNamespace, v1alpha1.MembersNamespace} {
		for _, list := range []client.ObjectList{&v1alpha1.MemberExportList{}, &corev1.ConfigMapList{}, &v1alpha1.FleetServiceList{}, &certificatesv1.CertificateSigningRequestList{}} {
			if _, err := agent.Watch(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"metadata.name": v1alpha1.MemberAPIConfigMap}); !apierrors.IsForbidden(err) {
				t.Errorf("a revoked member watches %T in %q: %v", list, namespace, err)
			}
		}
	}
	// The fleet goes on: another member comes and exports the same service.
	f.member("o-east", true, "10.2.0.0/16")
	token, _ = f.token("o-east", time.Hour)
	f.ask(token, "o-east", "bbbbbbbbbb", secondUID)
	f.judge("o-east")
	export(f.fixture, "o-east", "web")
	for range 3 {
		f.judge("o-east")
		f.judge("o-west")
	}
	end := &v1alpha1.MemberExport{}
	f.Must(f.client.Get(t.Context(), client.ObjectKeyFromObject(own), end))
	if end.ResourceVersion != own.ResourceVersion {
		t.Error("somebody wrote its export")
	}
	f.Must(f.client.Delete(t.Context(), own)) // a mark: the watches are open, and what comes before it would be seen
	for _, w := range watches[:1] {
		if e := <-w.ResultChan(); e.Type != watch.Deleted {
			t.Errorf("a revoked member was shown %+v", e)
		}
	}
}

// A hub that ends between two writes of a decision goes on with it.
func TestJoinGoesOn(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("g-west", true)
	token, account := f.token("g-west", time.Hour)
	csr := f.ask(token, "g-west", "aaaaaaaaaa", firstUID)
	for _, halfway := range []func(){
		func() {
			f.Must(f.joiner.claim(t.Context(), account, registration.JoinRequest{ID: "aaaaaaaaaa", ClusterUID: firstUID}))
		},
		func() {
			m := f.get("g-west")
			credential := &v1alpha1.MemberCredential{ID: "aaaaaaaaaa", ClusterUID: firstUID, Kind: v1alpha1.CredentialCertificate, IssuedTime: metav1.Now()}
			f.Must(f.joiner.record(t.Context(), m, registration.JoinPlan{Credential: credential}))
		},
	} {
		halfway()
		f.newJoiner(v1alpha1.CredentialCertificate)
		thief := f.ask(token, "g-west", "bbbbbbbbbb", secondUID)
		f.judge("g-west")
		f.wantCSR(csr, "Approved Accepted")
		f.wantCSR(thief, "Denied TokenUsed")
		f.Must(f.client.Delete(t.Context(), csr))
		csr = f.ask(token, "g-west", "aaaaaaaaaa", firstUID)
	}
}

// What was decided is about the MemberCluster as it is: of an admin who revokes and a hub
// that has not seen it, the admin wins.
func TestRevokeMeetsAccept(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("m-west", true)
	token, _ := f.token("m-west", time.Hour)
	f.ask(token, "m-west", "aaaaaaaaaa", firstUID)
	stale := f.get("m-west")
	f.accept("m-west", false)
	err := f.joiner.record(t.Context(), stale, registration.JoinPlan{Credential: &v1alpha1.MemberCredential{
		ID: "aaaaaaaaaa", ClusterUID: firstUID, Kind: v1alpha1.CredentialCertificate, IssuedTime: metav1.Now()}})
	if !apierrors.IsConflict(err) {
		t.Error(err)
	}
	f.judge("m-west")
	if s := f.get("m-west").Status; s.Credential != nil || s.JoinRequest == nil {
		t.Errorf("%+v", s)
	}
}

// A thief with an unused token of a member asks whose the name is, and then as that
// cluster: the answer has used the token up, and the member keeps its credential.
func TestStolenTokenOfAMember(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("u-west", true)
	own, _ := f.token("u-west", time.Hour)
	f.ask(own, "u-west", "aaaaaaaaaa", firstUID)
	f.judge("u-west")
	stolen, _ := f.token("u-west", time.Hour)
	told := f.ask(stolen, "u-west", "bbbbbbbbbb", secondUID)
	f.judge("u-west")
	f.wantCSR(told, "Denied NameTaken")
	again := f.ask(stolen, "u-west", "cccccccccc", firstUID)
	f.judge("u-west")
	f.wantCSR(again, "Denied TokenUsed")
	if c := f.get("u-west").Status.Credential; c == nil || c.ID != "aaaaaaaaaa" {
		t.Errorf("the member has credential %+v", c)
	}
}

// A MemberCluster that was deleted and made again has nobody's credential, and tokens of
// the first are nothing for the second.
func TestMadeAgain(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("a-west", true)
	token, account := f.token("a-west", time.Hour)
	csr := f.ask(token, "a-west", "aaaaaaaaaa", firstUID)
	f.judge("a-west")
	f.wantCSR(csr, "Approved Accepted")
	unused, _ := f.token("a-west", time.Hour)
	f.Must(f.client.Delete(t.Context(), f.get("a-west")))
	f.member("a-west", true)
	late := f.ask(unused, "a-west", "bbbbbbbbbb", secondUID)
	renewal := f.ask(envtestkit.As(t, registration.MemberUser("a-west", "aaaaaaaaaa"), v1alpha1.MembersGroup), "a-west", "aaaaaaaaaa", firstUID)
	f.judge("a-west")
	f.wantCSR(late, "Denied TokenEnded")
	f.wantCSR(renewal, "Denied NotInForce")
	if err := f.client.Get(t.Context(), client.ObjectKeyFromObject(account), account); !apierrors.IsNotFound(err) {
		t.Error("the account stays: ", err)
	}
	if c := f.get("a-west").Status.Credential; c != nil {
		t.Errorf("%+v", c)
	}
}

// Where the hub's cluster signs no client certificates, a member has tokens of a
// ServiceAccount: its join account may make the first, it renews them itself, and
// nobody else may.
func TestTokensForCertificates(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialServiceAccountToken)
	f.member("k-west", true)
	f.member("k-east", true)
	token, _ := f.token("k-west", time.Hour)
	other, _ := f.token("k-east", time.Hour)
	csr := f.ask(token, "k-west", "aaaaaaaaaa", firstUID)
	f.judge("k-west")
	name := f.wantCSR(csr, "Approved ServiceAccountToken")
	if name != "k-west.aaaaaaaaaa" {
		t.Error(name)
	}
	makeToken := func(as *rest.Config) (*rest.Config, error) {
		c, err := client.New(as, client.Options{Scheme: f.scheme})
		f.Must(err)
		request := &authenticationv1.TokenRequest{}
		err = c.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MembersNamespace, Name: name}}, request)
		config := rest.CopyConfig(as)
		config.CertData, config.KeyData, config.BearerToken = nil, nil, request.Status.Token
		return config, err
	}
	var own *rest.Config
	f.Eventually("the join account makes a token", func() (ok bool) {
		var err error
		own, err = makeToken(token)
		return err == nil
	})
	if _, err := makeToken(other); !apierrors.IsForbidden(err) {
		t.Error("another join account makes a token of it: ", err)
	}
	if _, err := makeToken(own); err != nil {
		t.Error("a member does not renew its token: ", err)
	}
	agent, err := client.New(own, client.Options{Scheme: f.scheme})
	f.Must(err)
	f.mayList(agent, "k-west", true)
	if err := agent.List(t.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-k-east")); !apierrors.IsForbidden(err) {
		t.Error("it reads another member's namespace: ", err)
	}
	if err := agent.List(t.Context(), &corev1.ServiceAccountList{}, client.InNamespace(v1alpha1.MembersNamespace)); !apierrors.IsForbidden(err) {
		t.Error("it lists ServiceAccounts: ", err)
	}

	m := f.get("k-west")
	m.Spec.Accepted, m.Spec.RevokedCredentials = false, []string{"aaaaaaaaaa"}
	f.Must(f.client.Update(t.Context(), m))
	f.judge("k-west")
	f.mayList(agent, "k-west", false)
	if err := f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.MembersNamespace, Name: name}, &corev1.ServiceAccount{}); !apierrors.IsNotFound(err) {
		t.Error("the account of a revoked credential stays: ", err)
	}
}

// Decided requests are deleted a while later, and at once beyond a number.
func TestRequestsAreDeleted(t *testing.T) {
	f := newJoinFixture(t, v1alpha1.CredentialCertificate)
	f.member("f-west", true)
	thief := envtestkit.As(t, registration.MemberUser("f-west", "bbbbbbbbbb"), v1alpha1.MembersGroup)
	for range 30 {
		f.ask(thief, "f-west", "bbbbbbbbbb", secondUID)
	}
	left := func() int {
		var all certificatesv1.CertificateSigningRequestList
		f.Must(f.client.List(t.Context(), &all))
		return len(all.Items)
	}
	testkit.Eventually(t, "few are left", func() bool { f.judge("f-west"); return left() == 10 })
	f.joiner.now = func() time.Time { return time.Now().Add(time.Hour) }
	f.judge("f-west")
	if n := left(); n != 0 {
		t.Errorf("%d requests are left", n)
	}
}
