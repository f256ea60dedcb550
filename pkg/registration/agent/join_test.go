package agent

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

func userIn(f *fixture, r *certificatesv1.CertificateSigningRequest) string {
	f.Helper()
	block, _ := pem.Decode(r.Spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	f.Must(err)
	return request.Subject.CommonName
}

// A cluster joins: with a token it asks, waits for its acceptance, and works within
// seconds of it. An agent that is restarted meanwhile goes on with its request, and the
// private key stays in the member.
func TestJoin(t *testing.T) {
	f := newFixture(t, "j-west")
	p := f.in(envtestkit.Other(t))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: corev1.NodeSpec{PodCIDR: "10.1.0.0/16", PodCIDRs: []string{"10.1.0.0/16"}}}
	f.Must(p.admin.Create(t.Context(), node))
	t.Cleanup(func() { _ = p.admin.Delete(context.Background(), node) })
	a := p.start("agent-0")
	a.says("NotJoined: ", "crossway token create", "crossway join", JoinSecret)
	if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "NotJoined") {
		t.Errorf("/readyz says %v", err)
	}
	p.join(f.token())
	request := f.undecided()
	a.says("WaitingForAcceptance: ", "crossway accept j-west", uidOf(f, p.config))
	if got := request.Annotations; got[v1alpha1.AnnotationClusterUID] != uidOf(f, p.config) || got[v1alpha1.AnnotationEndpointCIDRs] != "10.1.0.0/16" || got[v1alpha1.AnnotationAgentTime] == "" {
		t.Errorf("the request says %v", got)
	}
	if _, id, ok := registration.ParseMemberUser(userIn(f, request)); !ok || id != string(p.stored().Data["pending-id"]) {
		t.Errorf("the request is for user %q", userIn(f, request))
	}
	a.stop()
	a = p.start("agent-0")
	a.says("WaitingForAcceptance: ")
	if got := f.requests(); len(got) != 1 || got[0].Name != request.Name {
		t.Errorf("after a restart there are %d requests", len(got))
	}

	accepted := time.Now()
	f.approve(request)
	a.awaitWork()
	t.Logf("from the approval to the Lease: %s", time.Since(accepted))
	a.says("Working: ", "j-west")
	if err := a.Ready(); err != nil {
		t.Errorf("/readyz says %v", err)
	}
	lease, stored := f.lease(), p.stored()
	id := string(stored.Data["id"])
	if lease.Annotations[v1alpha1.AnnotationClusterUID] != uidOf(f, p.config) || lease.Annotations[v1alpha1.AnnotationCredential] != id || !strings.HasPrefix(*lease.Spec.HolderIdentity, "agent-0_") {
		t.Errorf("the Lease says %v, held by %s", lease.Annotations, *lease.Spec.HolderIdentity)
	}
	for key := range stored.Data {
		if strings.HasPrefix(key, "pending-") {
			t.Errorf("%s is left in the Secret", key)
		}
	}
	a.stop()
	a = p.start("agent-0")
	a.awaitWork()
	if got := f.requests(); len(got) != 1 {
		t.Errorf("a restarted agent that has joined sends requests: %d", len(got))
	}
}

// A renewal takes the place of the credential without a restart: new requests are sent
// with the new one, and a watch that was opened before goes on.
func TestRenewal(t *testing.T) {
	f := newFixture(t, "r-west")
	p, a := f.joined()
	have, ok := a.Credential(t.Context())
	if !ok {
		t.Fatal("no credential")
	}
	go func() { _ = a.Keep(t.Context()) }()
	hub, err := client.NewWithWatch(a.HubConfig(have), client.Options{Scheme: f.scheme})
	f.Must(err)
	before := a.Now()
	watch, err := hub.Watch(t.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-r-west"))
	f.Must(err)
	defer watch.Stop()

	a.moves(15 * time.Hour)
	time.Sleep(2 * time.Second)
	if got := f.requests(); len(got) != 1 {
		t.Errorf("after 15 of 24 h there are %d requests", len(got))
	}
	a.moves(2 * time.Hour)
	request := f.undecided()
	if user := request.Spec.Username; user != registration.MemberUser("r-west", have.ID) || userIn(f, request) != user {
		t.Errorf("the renewal is asked for by %s, for %s", user, userIn(f, request))
	}
	if err := a.Ready(); err != nil {
		t.Errorf("while it renews, /readyz says %v", err)
	}
	f.approve(request)
	f.Eventually("the new credential", func() bool { return a.Now() != before })
	renewed, _ := a.Credential(t.Context())
	if renewed.ID != have.ID || string(renewed.Certificate) == string(have.Certificate) || string(renewed.Key) == string(have.Key) {
		t.Error("the renewal has another ID, or the same certificate or key")
	}
	f.Must(hub.List(t.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-r-west")))
	f.Must(f.hub.Create(t.Context(), &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-r-west", Name: "web.shop"},
		Spec: v1alpha1.MemberExportSpec{Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP}},
	}))
	select {
	case e, open := <-watch.ResultChan():
		if !open || e.Object.(client.Object).GetName() != "web.shop" {
			t.Errorf("the watch from before the renewal: %v %v", open, e)
		}
	case <-time.After(testkit.Timeout):
		t.Error("the watch from before the renewal shows nothing")
	}
	if string(p.stored().Data["tls.crt"]) != string(renewed.Certificate) {
		t.Error("the Secret has another certificate")
	}
}

// Where the hub's cluster signs no client certificates, a member has tokens of an account.
func TestTokenOfAnAccount(t *testing.T) {
	f := newFixture(t, "t-west")
	p := f.in(envtestkit.Other(t))
	p.join(f.token())
	a := p.start("agent-0")
	request := f.undecided()
	_, id, _ := registration.ParseMemberUser(userIn(f, request))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MembersNamespace, Name: registration.MemberAccount("t-west", id)}}
	f.Must(f.hub.Create(t.Context(), account))
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: account.Namespace, Name: account.Name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{account.Name}, Verbs: []string{"create"}},
	}}
	user := registration.CredentialUser("t-west", v1alpha1.CredentialServiceAccountToken, id)
	binding := &rbacv1.RoleBinding{ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}}
	for _, name := range []string{request.Spec.Username, user} {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
	}
	f.Must(f.hub.Create(t.Context(), role))
	f.Must(f.hub.Create(t.Context(), binding))
	f.letIn(user)
	f.decide(request, certificatesv1.CertificateApproved, "ServiceAccountToken", account.Name)
	a.awaitWork()
	have, _ := a.Credential(t.Context())
	if have.Token == "" || have.ID != id || len(have.Certificate) != 0 {
		t.Errorf("credential %s with token %v", have.ID, have.Token != "")
	}
	go func() { _ = a.Keep(t.Context()) }()
	a.moves(17 * time.Hour)
	f.Eventually("another token", func() bool { now, _ := a.Credential(t.Context()); return now.Token != have.Token })
	if got := f.requests(); len(got) != 1 {
		t.Errorf("a token was renewed by %d requests for certificates", len(got)-1)
	}
}

// What the hub refuses is said in its words, and not asked again with the same token; a
// new token is a new joining. A refusal because of the clocks is tried again.
func TestDenied(t *testing.T) {
	f := newFixture(t, "d-west")
	p := f.in(envtestkit.Other(t))
	p.join(f.token())
	a := p.start("agent-0")
	first := f.undecided()
	f.decide(first, certificatesv1.CertificateDenied, "NameTaken", "cluster 123 is d-west: use another name")
	a.says("Denied: ", "cluster 123 is d-west: use another name (NameTaken)")
	f.Must(f.hub.Delete(t.Context(), first)) // as the hub does after a while
	a.stop()
	a = p.start("agent-0")
	a.says("Denied: ", "use another name (NameTaken)")
	time.Sleep(2 * time.Second)
	if got := f.requests(); len(got) != 0 {
		t.Errorf("asks again %d times", len(got))
	}
	p.join(f.token())
	second := f.undecided()
	f.decide(second, certificatesv1.CertificateDenied, "ClockDiffers", "here it is noon and there it is midnight")
	a.says("Denied: ", "here it is noon and there it is midnight (ClockDiffers)")
	third := f.undecided()
	if userIn(f, second) != userIn(f, third) || third.Name == second.Name {
		t.Errorf("%s asks for %s, and after a refusal because of the clocks %s for %s", second.Name, userIn(f, second), third.Name, userIn(f, third))
	}
	f.approve(third)
	a.awaitWork()
}

// A token that ended or was used, one of another CA, one that is none, and a hub that is
// away are told apart. Nothing of a token is in what is said.
func TestTokensThatDoNotJoin(t *testing.T) {
	f := newFixture(t, "x-west")
	good, err := registration.DecodeJoinToken(f.token())
	f.Must(err)
	other := envtestkit.Other(t)
	encoded := func(change func(*registration.JoinToken)) string {
		token := good
		change(&token)
		text, err := token.Encode()
		f.Must(err)
		return text
	}
	gone := f.token()
	f.Must(f.hub.DeleteAllOf(t.Context(), &corev1.ServiceAccount{}, client.InNamespace(v1alpha1.MembersNamespace)))
	for _, c := range []struct {
		what, token string
		words       []string
	}{
		{"used", gone, []string{"CredentialUnknown: ", "crossway token create x-west"}},
		{"no token", "nonsense", []string{"TokenUnreadable: ", "copy all"}},
		{"of edges", encoded(func(t *registration.JoinToken) { t.Member, t.EdgePool = "", "us" }), []string{"TokenUnreadable: ", "edges of pool us"}},
		{"another CA", encoded(func(t *registration.JoinToken) { t.CA = other.CAData }), []string{"WrongCA: ", good.Server}},
		{"away", encoded(func(t *registration.JoinToken) { t.Server = "https://127.0.0.1:1" }), []string{"HubNotReachable: ", "https://127.0.0.1:1"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := f.in(other)
			p.join(c.token)
			a := p.start("agent-0")
			a.says(c.words...)
			if text := a.Ready().Error(); strings.Contains(text, good.Token[:40]) {
				t.Errorf("the token is in %q", text)
			}
			a.stop()
		})
	}
}

// What the agent stores is not refused because an annotation is another than it has seen,
// but is while somebody else wrote data.
func TestStoreMeetsAnnotation(t *testing.T) {
	f := newFixture(t, "s-west")
	p := f.in(envtestkit.Other(t))
	a := p.start("agent-0")
	a.says("NotJoined: ")
	write := func(change func(*corev1.Secret)) {
		f.Eventually("the newest Secret", func() bool { return a.secrets.stored().ResourceVersion == p.stored().ResourceVersion })
		seen, now := a.secrets.stored(), p.stored()
		change(now)
		f.Must(p.admin.Update(t.Context(), now))
		f.Eventually("the change", func() bool { return a.secrets.stored().ResourceVersion == now.ResourceVersion })
		f.Must(a.secrets.credential.GetStore().Update(seen)) // as if it had not been seen
	}
	write(func(s *corev1.Secret) { s.Annotations["example.com/other"] = "1" })
	if err := a.secrets.storePending(t.Context(), pending{For: "first"}); err != nil {
		t.Error(err)
	}
	if got := p.stored(); string(got.Data[keyPendingFor]) != "first" || got.Annotations["example.com/other"] != "1" {
		t.Errorf("stored %v, annotations %v", got.Data, got.Annotations)
	}
	write(func(s *corev1.Secret) { s.Data[keyPendingFor] = []byte("other") })
	if err := a.secrets.storePending(t.Context(), pending{For: "second"}); err == nil {
		t.Error("data of somebody else was replaced")
	}
}
