package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/registration/renewal"
)

// joinEdge has an edge join by a token, as `crossway join --edge` does, and returns its Secret.
func (f *fixture) joinEdge(pool *v1alpha1.EdgePool, id string) *corev1.Secret {
	f.t.Helper()
	group := "system:serviceaccounts:" + v1alpha1.MembersNamespace
	f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MembersNamespace}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "crossway-certificates"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "crossway-certificates"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "crossway-certificates"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}}})
	account := registration.NewEdgeJoinAccount(pool, "us-a", id, time.Now().Add(time.Hour))
	testkit.Must(f.t, f.Create(f.t.Context(), account))
	key, request, err := registration.NewEdgeRequest(rand.Reader)
	testkit.Must(f.t, err)
	joining, err := client.New(envtestkit.As(f.t, "system:serviceaccount:"+v1alpha1.MembersNamespace+":"+account.Name, group, "system:authenticated"), client.Options{Scheme: f.Scheme()})
	testkit.Must(f.t, err)
	csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: registration.EdgeRequestName(pool.Name, id)},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: registration.EdgeSigner, Request: request,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}}
	testkit.Must(f.t, joining.Create(f.t.Context(), csr))
	f.t.Cleanup(func() { _ = f.Delete(context.Background(), csr) })
	testkit.Eventually(f.t, "the request is signed", func() bool {
		testkit.Must(f.t, joining.Get(f.t.Context(), client.ObjectKeyFromObject(csr), csr))
		return len(csr.Status.Certificate) > 0
	})
	data, err := registration.EdgeSecretData(key, csr.Status.Certificate)
	testkit.Must(f.t, err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: registration.EdgeSecretName(pool.Name) + "-" + id}, Type: corev1.SecretTypeTLS, Data: data}
	testkit.Must(f.t, f.Create(f.t.Context(), secret))
	return secret
}

// stream opens a stream of configuration with a certificate, and returns what ends it.
func (f *fixture) stream(secret *corev1.Secret, node string) <-chan error {
	f.t.Helper()
	certificate, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	testkit.Must(f.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data["ca.crt"])
	connection, err := grpc.NewClient(f.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost"})))
	testkit.Must(f.t, err)
	f.t.Cleanup(func() { connection.Close() })
	s, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(f.t.Context())
	testkit.Must(f.t, err)
	testkit.Must(f.t, s.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: node}, TypeUrl: resourcev3.ClusterType}))
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}

// An edge joins by a token, its pool shows its credential, it renews over the xDS port, and it is out within 5 s of being
// revoked, with the renewed certificate, too. A CA that is deleted meanwhile is missed, and not replaced.
func TestCredentialsOfEdges(t *testing.T) {
	f := newFixture(t)
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "credentials"},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.7.0/24"}}}}
	testkit.Must(t, f.Create(t.Context(), pool))
	t.Cleanup(func() { _ = f.Delete(context.Background(), pool) })
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	const id = "abcdefghi7"
	secret := f.joinEdge(pool, id)
	ended := f.stream(secret, "envoy-0")
	current := func() *v1alpha1.EdgePool {
		var p v1alpha1.EdgePool
		testkit.Must(t, f.Get(t.Context(), client.ObjectKeyFromObject(pool), &p))
		return &p
	}
	testkit.Eventually(t, "the pool shows the credential", func() bool {
		p := current()
		valid := meta.IsStatusConditionTrue(p.Status.Conditions, condition.EdgePoolCertificatesType)
		return valid && len(p.Status.Credentials) == 1 && p.Status.Credentials[0].ID == id && p.Status.Credentials[0].Edges == 1
	})

	renewed := f.renewNow(secret)
	pair, err := tls.X509KeyPair(renewed.Data["tls.crt"], renewed.Data["tls.key"])
	testkit.Must(t, err)
	if got, err := registration.EdgeIdentityOf(pair.Leaf); err != nil || got.Credential != id || got.PoolUID != string(pool.UID) || slices.Equal(renewed.Data["tls.key"], secret.Data["tls.key"]) {
		t.Errorf("renewed for %+v, %v", got, err)
	}

	p := current()
	p.Spec.RevokedCredentials = []string{id}
	testkit.Must(t, f.Update(t.Context(), p))
	began := time.Now()
	select {
	case err := <-ended:
		t.Logf("the stream ended %s after the credential was revoked", time.Since(began).Round(time.Millisecond))
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "is revoked") || time.Since(began) > 5*time.Second {
			t.Errorf("the stream ended after %s with %v", time.Since(began), err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream is open 10 s after its credential was revoked")
	}
	if err := <-f.stream(renewed, "envoy-0"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a renewed certificate of a revoked credential: %v", err)
	}

	ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "crossway-system", Name: registration.EdgeCASecret}}
	testkit.Must(t, f.Get(t.Context(), client.ObjectKeyFromObject(ca), ca))
	testkit.Must(t, f.Delete(t.Context(), ca.DeepCopy()))
	testkit.Eventually(t, "the pool says that the CA is missing", func() bool {
		c := meta.FindStatusCondition(current().Status.Conditions, condition.EdgePoolCertificatesType)
		return c != nil && c.Reason == "CAMissing" && strings.Contains(c.Message, "Restore the Secret")
	})
	ca.ResourceVersion, ca.UID = "", ""
	testkit.Must(t, f.Create(t.Context(), ca))
	testkit.Eventually(t, "the restored CA counts", func() bool {
		return meta.IsStatusConditionTrue(current().Status.Conditions, condition.EdgePoolCertificatesType)
	})
}

// renewNow asks the hub for the next certificate of a Secret, due or not.
func (f *fixture) renewNow(secret *corev1.Secret) *corev1.Secret {
	f.t.Helper()
	stale := secret.DeepCopy()
	stale.Name, stale.ResourceVersion, stale.UID = "renewed-"+secret.Name, "", ""
	testkit.Must(f.t, f.Create(f.t.Context(), stale))
	late := renewal.Renewer{Client: f.Client, Secret: client.ObjectKeyFromObject(stale), Hub: f.xds, ServerName: "localhost", Log: logr.Discard(),
		Now: func() time.Time { return time.Now().Add(25 * 24 * time.Hour) }}
	testkit.Must(f.t, late.Renew(f.t.Context()))
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKeyFromObject(stale), stale))
	return stale
}
