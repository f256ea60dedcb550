package charts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

const joinAccount = "system:serviceaccount:crossway-members:join.us-7.aaaaaaaaaa"

// memberCSR is a request as an agent makes it, changed.
func memberCSR(t *testing.T, name string, change func(*certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	subject := pkix.Name{CommonName: registration.MemberUser("us-7", "aaaaaaaaaa"), Organization: []string{v1alpha1.MembersGroup}}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	testkit.Must(t, err)
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.AnnotationClusterUID: "11111111-aaaa"}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: ptr.To[int32](86400),
			Usages:  []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	}
	if change != nil {
		change(csr)
	}
	return csr
}

// clientOf is the API server as a user of groups sees it.
func clientOf(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	c, err := client.New(envtestkit.As(t, user, groups...), client.Options{})
	testkit.Must(t, err)
	return c
}

// Members and join accounts ask for certificates of the form that the hub approves, and
// of a bounded size; edges ask another signer. Nobody else is concerned.
func TestRequestsForCertificates(t *testing.T) {
	installHub(t, "")
	join := clientOf(t, joinAccount, "system:serviceaccounts:crossway-members", "system:serviceaccounts")
	member := clientOf(t, registration.MemberUser("us-7", "aaaaaaaaaa"), v1alpha1.MembersGroup)
	edge := clientOf(t, "system:serviceaccount:crossway-members:join-edge.us.aaaaaaaaaa", "system:serviceaccounts:crossway-members")
	toEdgeSigner := func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.SignerName = "crossway.dev/edge" }
	try := func(what string, c client.Client, allowed bool, name string, change func(*certificatesv1.CertificateSigningRequest)) {
		t.Helper()
		if err := c.Create(t.Context(), memberCSR(t, name, change), client.DryRunAll); (err == nil) != allowed || err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, allowed is %v", what, err, allowed)
		}
	}
	testkit.Eventually(t, "the policy is in force", func() bool {
		return apierrors.IsForbidden(join.Create(t.Context(), memberCSR(t, "others", nil), client.DryRunAll))
	})
	try("a join account", join, true, "crossway-us-7-1", nil)
	try("a member", member, true, "crossway-us-7-2", nil)
	try("an edge", edge, true, registration.EdgeRequestName("us", "aaaaaaaaaa"), toEdgeSigner)
	try("an edge that asks for more", edge, false, registration.EdgeRequestName("us", "aaaaaaaaaa"), nil)
	try("an edge that asks again and again", edge, false, "crossway-edge-us-aaaaaaaaab", toEdgeSigner)
	try("a member that poses as an edge", join, false, "crossway-us-7-5", toEdgeSigner)
	try("a group that is no member's", clientOf(t, "somebody"), false, "crossway-us-7-6", nil)
	for what, change := range map[string]func(*certificatesv1.CertificateSigningRequest){
		"another name": func(csr *certificatesv1.CertificateSigningRequest) { csr.Name = "node-csr-1" },
		"a long name":  func(csr *certificatesv1.CertificateSigningRequest) { csr.Name = "crossway-" + strings.Repeat("a", 200) },
		"10 years": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.ExpirationSeconds = ptr.To[int32](10 * 365 * 86400)
		},
		"any life": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.ExpirationSeconds = nil },
		"a kubelet's": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.SignerName = certificatesv1.KubeAPIServerClientKubeletSignerName
		},
		"a server's": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Usages = append(csr.Spec.Usages, certificatesv1.UsageServerAuth)
		},
		"huge annotations": func(csr *certificatesv1.CertificateSigningRequest) { csr.Annotations["a"] = strings.Repeat("a", 8000) },
		"many labels": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Labels = map[string]string{"a": "", "b": "", "c": "", "d": "", "e": ""}
		},
		"a finalizer": func(csr *certificatesv1.CertificateSigningRequest) { csr.Finalizers = []string{"crossway.dev/stay"} },
		"a huge request": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Request = append([]byte(strings.Repeat("text before\n", 1000)), csr.Spec.Request...)
		},
	} {
		try(what, join, false, "crossway-us-7-7", change)
		try(what, member, false, "crossway-us-7-7", change)
	}
	for _, c := range []client.Client{join, member} {
		if err := c.List(t.Context(), &certificatesv1.CertificateSigningRequestList{}); !apierrors.IsForbidden(err) {
			t.Error("it lists requests: ", err)
		}
		if err := c.List(t.Context(), &corev1.ServiceAccountList{}, client.InNamespace(v1alpha1.MembersNamespace)); !apierrors.IsForbidden(err) {
			t.Error("it lists accounts: ", err)
		}
	}
}

// The hub decides about requests of members and of nobody else, and asks for no
// certificate and no token itself: whoever takes it over is no administrator by it.
func TestHubDecidesAboutMembersOnly(t *testing.T) {
	for _, kind := range []string{"certificate", "token"} {
		hub := installHub(t, "joining.credential="+kind)
		admin, err := client.New(envtestkit.Config(t), client.Options{})
		testkit.Must(t, err)
		member := clientOf(t, registration.MemberUser("us-7", "aaaaaaaaaa"), v1alpha1.MembersGroup)
		for name, c := range map[string]client.Client{"crossway-us-7-own": member, "crossway-us-7-admins": admin, "others": admin} {
			csr := memberCSR(t, name, nil)
			testkit.Must(t, c.Create(t.Context(), csr))
			t.Cleanup(func() { _ = admin.Delete(t.Context(), csr) })
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "a"}}
			allowed := name == "crossway-us-7-own"
			if err := hub.SubResource("approval").Update(t.Context(), csr.DeepCopy(), &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}}); apierrors.IsForbidden(err) == allowed {
				t.Errorf("%s: the hub approves %s: %v", kind, name, err)
			}
			if err := hub.Delete(t.Context(), csr.DeepCopy(), client.DryRunAll); apierrors.IsForbidden(err) == allowed {
				t.Errorf("%s: the hub deletes %s: %v", kind, name, err)
			}
			testkit.Must(t, admin.Delete(t.Context(), csr))
		}
		if err := hub.Create(t.Context(), memberCSR(t, "crossway-us-7-hubs", nil), client.DryRunAll); !apierrors.IsForbidden(err) {
			t.Errorf("%s: the hub asks for a certificate: %v", kind, err)
		}
		objects := registration.NewTokenObjects("us-7", "aaaaaaaaaa", joinAccount)
		if err := client.IgnoreAlreadyExists(hub.Create(t.Context(), objects.Account.DeepCopy(), client.DryRunAll)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		testkit.Must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), objects.Role.DeepCopy())))
		for _, o := range []client.Object{&objects.Role, &objects.Binding} {
			again := o.DeepCopyObject().(client.Object)
			_ = admin.Delete(t.Context(), again)
			if err := hub.Create(t.Context(), o); (err == nil) != (kind == "token") {
				t.Errorf("%s: the hub makes %T: %v", kind, o, err)
			}
			testkit.Must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), again)))
			t.Cleanup(func() { _ = admin.Delete(t.Context(), again) })
		}
		testkit.Must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), objects.Account.DeepCopy())))
		if err := hub.SubResource("token").Create(t.Context(), &objects.Account, &authenticationv1.TokenRequest{}); !apierrors.IsForbidden(err) {
			t.Errorf("%s: the hub makes a token: %v", kind, err)
		}
	}
}

// The hub approves and signs what edges ask of signer crossway.dev/edge, and signs nothing else.
func TestHubSignsForEdges(t *testing.T) {
	hub := installHub(t, "")
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	const account = "system:serviceaccount:crossway-members:"
	for name, user := range map[string]string{"crossway-edge-us-aaaaaaaaaa": account + "join-edge.us.aaaaaaaaaa", "crossway-us-7-8": joinAccount} {
		edge := strings.HasPrefix(name, "crossway-edge")
		csr := memberCSR(t, name, func(csr *certificatesv1.CertificateSigningRequest) {
			if edge {
				csr.Spec.SignerName = registration.EdgeSigner
			}
		})
		testkit.Must(t, clientOf(t, user, "system:serviceaccounts:crossway-members").Create(t.Context(), csr))
		t.Cleanup(func() { _ = admin.Delete(t.Context(), csr) })
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "a"}}
		testkit.Must(t, hub.SubResource("approval").Update(t.Context(), csr))
		csr.Status.Certificate = ca.Certificate
		if err := hub.Status().Update(t.Context(), csr); (err == nil) != edge {
			t.Errorf("the hub signs for %s: %v", user, err)
		}
	}
}

// Tokens of accounts of members, and join tokens, last a day at most, whoever makes them.
func TestTokensLastADay(t *testing.T) {
	installHub(t, "")
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for _, namespace := range []string{v1alpha1.MembersNamespace, "mine"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "join.us-7.bbbbbbbbbb"}}
		testkit.Must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), account)))
		for seconds, allowed := range map[int64]bool{3600: true, 86400: true, 86401: false, 31536000: false} {
			err := admin.SubResource("token").Create(t.Context(), account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}})
			if (err == nil) != (allowed || namespace == "mine") {
				t.Errorf("%d s in %s: %v", seconds, namespace, err)
			}
		}
	}
}
