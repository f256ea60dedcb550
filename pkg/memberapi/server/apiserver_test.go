package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// hub is the member API of a real API server: its informers, its certificates, its tokens.
type hub struct {
	testkit.T
	api     *Server
	admin   client.Client
	address string
	ca      []byte
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{T: testkit.T{TB: t}}
	s := scheme()
	h.Must(v1alpha1.AddToScheme(s))
	config := envtestkit.Config(t)
	var err error
	h.admin, err = client.New(config, client.Options{Scheme: s})
	h.Must(err)
	informers, err := cache.New(config, cache.Options{Scheme: s, ByObject: map[client.Object]cache.ByObject{
		&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{ClientCANamespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", ClientCAConfigMap)}}}}})
	h.Must(err)
	reviews, err := authenticationclient.NewForConfig(config)
	h.Must(err)
	authenticator, err := NewAuthenticator(informers, reviews)
	h.Must(err)
	h.api = New(Config{Informers: informers})
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.Must(err)
	h.address = socket.Addr().String()
	h.Must(socket.Close())
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	h.Must(err)
	pair, err := registration.NewServerCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, []string{"127.0.0.1"})
	h.Must(err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	h.Must(err)
	h.ca = ca.Certificate
	certified := make(chan struct{})
	close(certified)
	l := NewListener(ListenerConfig{Server: h.api, Address: h.address, Authenticator: authenticator, Certified: certified,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }})
	for _, start := range []func(context.Context) error{informers.Start, h.api.Start, authenticator.Start, l.Start} {
		testkit.Run(t, start)
	}
	return h
}

// make creates objects; what is there from an earlier test stays.
func (h *hub) make(objects ...client.Object) {
	h.TB.Helper()
	for _, o := range objects {
		if err := h.admin.Create(h.TB.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			h.TB.Fatal(err)
		}
	}
}

// reader is a client of the member API with the credential of config.
func (h *hub) reader(config *rest.Config) client.Client {
	h.TB.Helper()
	own := &rest.Config{Host: "https://" + h.address, BearerToken: config.BearerToken, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: h.ca, CertData: config.CertData, KeyData: config.KeyData}}
	mapper := meta.NewDefaultRESTMapper(nil) // errors of discovery have no message
	mapper.Add(schema.GroupVersion(mcsv1beta1.GroupVersion).WithKind("ServiceImport"), meta.RESTScopeNamespace)
	c, err := client.New(own, client.Options{Scheme: scheme(), Mapper: mapper})
	h.Must(err)
	return c
}

func (h *hub) imports(c client.Client) (names string, err error) {
	var list mcsv1beta1.ServiceImportList
	err = c.List(h.TB.Context(), &list)
	for _, i := range list.Items {
		names += i.Name + " "
	}
	return names, err
}

// A member of a real API server: who may read, and what nobody may read before it is whole.
func TestAuthentication(t *testing.T) {
	h := newHub(t)
	h.make(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "auth"}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us",
		Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"shop"}}}})
	testkit.Joined(t, h.admin, "auth")
	agent := h.reader(envtestkit.As(t, registration.MemberUser("auth", testkit.CredentialID)))

	// The caches are synced, and nothing is merged yet: an empty list would make agents delete all that they have.
	h.Eventually("MemberClusters are read", func() bool { return len(h.api.inbox.Wake()) > 0 })
	if _, err := h.imports(agent); err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		t.Errorf("served before the first merge: %v", err)
	}
	h.api.Merged(map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{{Namespace: "shop", Name: "web"}: specOf("shop", "web", "auth")})
	h.Eventually("the API is served", func() bool {
		names, err := h.imports(agent)
		return err == nil && names == "web "
	})

	if _, err := h.imports(h.reader(envtestkit.As(t, registration.MemberUser("nobody", testkit.CredentialID)))); !apierrors.IsForbidden(err) {
		t.Errorf("a cluster that is no member: %v", err)
	}
	if _, err := h.imports(h.reader(envtestkit.As(t, "system:admin", "system:masters"))); !apierrors.IsForbidden(err) {
		t.Errorf("an administrator of the hub's cluster is no member: %v", err)
	}
	forged := envtestkit.As(t, registration.MemberUser("auth", testkit.CredentialID))
	forged.CertData, forged.KeyData = h.foreignCertificate()
	if _, err := h.imports(h.reader(forged)); !apierrors.IsUnauthorized(err) {
		t.Errorf("a certificate of another CA: %v", err)
	}
	if _, err := h.imports(h.reader(&rest.Config{BearerToken: "x.y.z"})); !apierrors.IsUnauthorized(err) {
		t.Errorf("an invalid token: %v", err)
	}
	if _, err := h.imports(h.reader(&rest.Config{BearerToken: h.token("agent")})); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:default:agent") {
		t.Errorf("a valid token of another user: %v", err)
	}
	h.kubectl(envtestkit.As(t, registration.MemberUser("auth", testkit.CredentialID)))
}

// While the API server does not answer, watches go on and certificates are valid.
func TestFrozenAPIServer(t *testing.T) {
	h := newHub(t)
	h.make(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "frozen"}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us",
		Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"shop"}}}})
	h.api.Merged(nil)
	testkit.Joined(t, h.admin, "frozen")
	config := envtestkit.As(t, registration.MemberUser("frozen", testkit.CredentialID))
	agent := h.reader(config)
	h.Eventually("the API is served", func() bool { _, err := h.imports(agent); return err == nil })
	own := &rest.Config{Host: "https://" + h.address, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: h.ca, CertData: config.CertData, KeyData: config.KeyData}}
	watching, err := client.NewWithWatch(own, client.Options{Scheme: scheme()})
	h.Must(err)
	w, err := watching.Watch(t.Context(), &mcsv1beta1.ServiceImportList{})
	h.Must(err)
	defer w.Stop()

	thaw := envtestkit.Freeze(t)
	defer thaw()
	h.api.Merged(map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{{Namespace: "shop", Name: "web"}: specOf("shop", "web", "frozen")})
	if e := <-w.ResultChan(); e.Object.(client.Object).GetName() != "web" {
		t.Errorf("the open watch got %v", e)
	}
	if names, err := h.imports(h.reader(config)); names != "web " {
		t.Errorf("a new connection: %q, %v", names, err)
	}
}

// foreignCertificate is a client certificate of a CA that the API server does not trust.
func (h *hub) foreignCertificate() (certificate, key []byte) {
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	h.Must(err)
	pair, err := registration.NewEdgeCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us"}, time.Hour)
	h.Must(err)
	return pair.Certificate, pair.Key
}

// token is one of a ServiceAccount.
func (h *hub) token(account string) string {
	h.make(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: account}})
	request := &authenticationv1.TokenRequest{}
	h.Must(h.admin.SubResource("token").Create(h.TB.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: account}}, request))
	return request.Status.Token
}

// kubectl shows a person what a member sees.
func (h *hub) kubectl(config *rest.Config) {
	h.TB.Helper()
	file := filepath.Join(h.TB.TempDir(), "kubeconfig")
	h.Must(clientcmd.WriteToFile(clientcmdapi.Config{CurrentContext: "hub",
		Clusters:  map[string]*clientcmdapi.Cluster{"hub": {Server: "https://" + h.address, CertificateAuthorityData: h.ca}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"hub": {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}},
		Contexts:  map[string]*clientcmdapi.Context{"hub": {Cluster: "hub", AuthInfo: "hub"}}}, file))
	for _, c := range []struct {
		args, want string
		fails      bool
	}{
		{"get serviceimports -A -o name", "serviceimport.multicluster.x-k8s.io/web", false},
		{"get serviceimports,endpointslices -A", "web", false},
		{"get serviceimport web -n shop -o yaml", "clusters:", false},
		{"get serviceimports -n other", `may not import namespace "other"`, true},
	} {
		args := append([]string{"--kubeconfig", file, "--cache-dir", h.TB.TempDir()}, strings.Fields(c.args)...)
		out, err := exec.CommandContext(h.TB.Context(), envtestkit.Programs(h.TB).Path("kubectl"), args...).CombinedOutput()
		if (err != nil) != c.fails || !strings.Contains(string(out), c.want) {
			h.TB.Errorf("kubectl %s: %v\n%s", c.args, err, out)
		}
	}
}
