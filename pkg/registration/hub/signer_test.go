package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// The leader makes what is missing, once. A serving certificate that lacks a name is signed anew by the same CA. A CA
// that does not parse is an error and is never replaced, because it signed every edge's certificate.
func TestSigner(t *testing.T) {
	s := newSigner(t)
	c, namespace := s.Client, s.Namespace
	read := func(name string) (corev1.Secret, string) {
		var secret corev1.Secret
		testkit.Must(t, c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, &secret))
		return secret, secret.ResourceVersion
	}
	testkit.Must(t, s.ensure(t.Context()))
	ca, caVersion := read(registration.EdgeCASecret)
	server, version := read(registration.XDSSecret)
	if _, err := tls.X509KeyPair(server.Data["tls.crt"], server.Data["tls.key"]); err != nil || string(server.Data["ca.crt"]) != string(ca.Data["tls.crt"]) {
		t.Errorf("the serving certificate is not usable: %v", err)
	}
	replicas, replicasVersion := read(registration.ReplicaSecret)
	if fault := registration.HubReplicaCertificateFault(registration.CAOf(ca.Data).Issuer(time.Now(), rand.Reader), pairOf(&replicas)); fault != "" ||
		string(replicas.Data["ca.crt"]) != string(ca.Data["tls.crt"]) || len(replicas.Data[registration.VersionKey]) > 0 {
		t.Errorf("the certificate of replicas is not usable: %s", fault)
	}
	testkit.Must(t, s.ensure(t.Context()))
	for name, before := range map[string]string{registration.XDSSecret: version, registration.ReplicaSecret: replicasVersion} {
		if _, again := read(name); again != before {
			t.Errorf("the good certificate in %s was made anew", name)
		}
	}
	s.Names = []string{"hub.example.com", "10.0.0.1"}
	testkit.Must(t, s.ensure(t.Context()))
	renewed, again := read(registration.XDSSecret)
	if again == version {
		t.Error("a certificate without one of the names was kept")
	}
	key := server.Data[registration.VersionKey]
	if len(key) < registration.VersionKeyLength || !bytes.Equal(renewed.Data[registration.VersionKey], key) {
		t.Error("with a new certificate the key for versions is missing, or another one")
	}
	delete(renewed.Data, registration.VersionKey) // as an older hub made it
	testkit.Must(t, c.Update(t.Context(), &renewed))
	testkit.Must(t, s.ensure(t.Context()))
	added, _ := read(registration.XDSSecret)
	if len(added.Data[registration.VersionKey]) < registration.VersionKeyLength || !bytes.Equal(added.Data["tls.key"], renewed.Data["tls.key"]) {
		t.Error("a Secret of an older hub got no key for versions, or another certificate")
	}
	if _, again := read(registration.EdgeCASecret); again != caVersion {
		t.Error("the CA was written again")
	}
	ca.Data["tls.crt"] = []byte("not a certificate")
	testkit.Must(t, c.Update(t.Context(), &ca))
	_, caVersion = read(registration.EdgeCASecret)
	if s.ensure(t.Context()) == nil {
		t.Error("a CA that is none passes")
	}
	if _, again := read(registration.EdgeCASecret); again != caVersion {
		t.Error("a CA that does not parse was replaced")
	}
}

// The CA of gossip is made beside the edge CA, also while that is damaged, stays while it is good, and is made anew when it
// is gone: nobody needs it back.
func TestSignerMakesMemberCA(t *testing.T) {
	s := newSigner(t)
	key := client.ObjectKey{Namespace: s.Namespace, Name: registration.MemberCASecret}
	read := func() *corev1.Secret {
		var secret corev1.Secret
		testkit.Must(t, s.Live.Get(t.Context(), key, &secret))
		return &secret
	}
	testkit.Must(t, s.ensure(t.Context()))
	first := read()
	testkit.Must(t, s.ensure(t.Context()))
	if again := read(); again.ResourceVersion != first.ResourceVersion {
		t.Error("a good CA was written again")
	}
	edges := s.secret(registration.EdgeCASecret)
	testkit.Must(t, s.Live.Get(t.Context(), client.ObjectKeyFromObject(edges), edges))
	if name := registration.CAOf(edges.Data).Name(); name == registration.CAOf(first.Data).Name() {
		t.Errorf("one CA, %s, is for edges and gossip", name)
	}
	edges.Data["tls.crt"] = []byte("not a certificate")
	testkit.Must(t, s.Client.Update(t.Context(), edges))
	testkit.Must(t, s.Client.Delete(t.Context(), first))
	if s.ensure(t.Context()) == nil {
		t.Error("an edge CA that is none passes")
	}
	if made := registration.CAOf(read().Data); made.Check() != nil || made.Name() == registration.CAOf(first.Data).Name() {
		t.Error("no new CA of gossip was made")
	}
}

// A Secret that is deleted or damaged while the Signer runs is whole again at once, not at the next of its hourly looks. The
// edge CA alone stays gone, and that is said at once, too.
func TestSecretsComeBack(t *testing.T) {
	s := newSigner(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { testkit.Must(t, s.Start(ctx)) })
	t.Cleanup(func() { cancel(); running.Wait() })
	names := []string{registration.XDSSecret, registration.ReplicaSecret, registration.MemberCASecret}
	good := func(name string) bool {
		secret := s.secret(name)
		if s.Live.Get(t.Context(), client.ObjectKeyFromObject(secret), secret) != nil {
			return false
		}
		_, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
		return err == nil && !bytes.Equal(secret.Data["ca.crt"], []byte("damaged"))
	}
	expect := func(what string) {
		t.Helper()
		for _, name := range names {
			testkit.Eventually(t, what+": Secret "+name+" is good", func() bool { return good(name) })
		}
	}
	expect("at the start")
	for _, name := range names {
		testkit.Must(t, s.Client.Delete(t.Context(), s.secret(name)))
		expect(name + " was deleted")
		for _, key := range []string{"tls.crt", "tls.key", "ca.crt"} {
			if name == registration.MemberCASecret && key == "ca.crt" {
				continue // a CA has none
			}
			damaged := s.read(t, name)
			damaged.Data[key] = []byte("damaged")
			testkit.Must(t, s.Client.Update(t.Context(), damaged))
			expect(key + " of " + name + " was damaged")
		}
	}
	testkit.Must(t, s.Client.Delete(t.Context(), s.secret(registration.EdgeCASecret)))
	testkit.Eventually(t, "the edge CA is missed", func() bool { return s.Fault() != nil })
	if err := s.Live.Get(t.Context(), client.ObjectKey{Namespace: s.Namespace, Name: registration.EdgeCASecret}, s.secret(registration.EdgeCASecret)); !apierrors.IsNotFound(err) {
		t.Errorf("an edge CA was made in silence: %v", err)
	}
}

// newSigner is a Signer in a namespace of its own.
func newSigner(t *testing.T) *Signer {
	t.Helper()
	scheme := runtime.NewScheme()
	testkit.Must(t, clientgoscheme.AddToScheme(scheme))
	testkit.Must(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(envtestkit.Config(t), client.Options{Scheme: scheme})
	testkit.Must(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "signer-"}}
	testkit.Must(t, c.Create(t.Context(), namespace))
	return &Signer{Client: c, Live: c, Namespace: namespace.Name, Names: []string{"hub.example.com"}, Log: logr.Discard()}
}

func (s *Signer) read(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := s.secret(name)
	testkit.Must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret))
	return secret
}

// A CA that is gone or empty is never replaced in silence: not while the serving certificate is there, nor after that was
// deleted, too. Whoever wants a new one says so.
func TestEdgeCAIsNotReplacedInSilence(t *testing.T) {
	s := newSigner(t)
	testkit.Must(t, s.ensure(t.Context()))
	first := registration.CAOf(s.read(t, registration.EdgeCASecret).Data)
	refused := func(what, because string) {
		t.Helper()
		err := s.ensure(t.Context())
		if err == nil || !strings.Contains(err.Error(), because) || s.Fault() == nil {
			t.Errorf("%s: %v, fault %v; want a refusal because of %s", what, err, s.Fault(), because)
		}
	}
	empty := s.read(t, registration.EdgeCASecret)
	full := empty.DeepCopy()
	empty.Data = map[string][]byte{"tls.crt": {}, "tls.key": {}}
	testkit.Must(t, s.Client.Update(t.Context(), empty))
	refused("the Secret is empty", "Secret crossway-xds (CA "+first.Name()+")")
	testkit.Must(t, s.Client.Delete(t.Context(), s.secret(registration.EdgeCASecret)))
	refused("the Secret is gone", "Secret crossway-xds (CA "+first.Name()+")")
	server := s.read(t, registration.XDSSecret)
	testkit.Must(t, s.Client.Delete(t.Context(), server))
	refused("both Secrets are gone", "ControllerRevision crossway-edge-ca")
	testkit.Must(t, s.Client.Delete(t.Context(), s.emptyRecord()))
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "remembers"}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
	testkit.Must(t, s.Client.Create(t.Context(), pool))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), pool) })
	pool.Status.Credentials = []v1alpha1.EdgeCredential{{ID: "abcdefghi1", CA: first.Name(), ExpirationTime: metav1.Now()}}
	testkit.Must(t, s.Client.Status().Update(t.Context(), pool))
	refused("all but the pools is gone", `the status of EdgePool "remembers" (CA `+first.Name()+")")
	if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(server), s.secret(registration.XDSSecret)); !apierrors.IsNotFound(err) {
		t.Errorf("a serving certificate was made without a CA: %v", err)
	}

	full.ResourceVersion, full.UID = "", ""
	testkit.Must(t, s.Client.Create(t.Context(), full))
	testkit.Must(t, s.ensure(t.Context()))
	if s.Fault() != nil || !bytes.Equal(s.read(t, registration.XDSSecret).Data["ca.crt"], first.Bundle()) {
		t.Errorf("the restored CA does not count: %v", s.Fault())
	}

	testkit.Must(t, s.Client.Delete(t.Context(), s.secret(registration.EdgeCASecret)))
	anew := s.secret(registration.EdgeCASecret)
	anew.Annotations, anew.Data = map[string]string{registration.AnnotationNewCA: "true"}, map[string][]byte{"tls.crt": {}, "tls.key": {}}
	testkit.Must(t, s.Client.Create(t.Context(), anew))
	testkit.Must(t, s.ensure(t.Context()))
	after := s.read(t, registration.EdgeCASecret)
	second := registration.CAOf(after.Data)
	if second.Missing() || second.Name() == first.Name() || after.Annotations[registration.AnnotationNewCA] != "" {
		t.Errorf("asked for a new CA, got %q with annotations %v", second.Name(), after.Annotations)
	}
	testkit.Must(t, s.Client.Delete(t.Context(), s.secret(registration.EdgeCASecret)))
	refused("the new one is gone", "Secret crossway-xds (CA "+second.Name()+")")
}

// What goes wrong is logged once while it lasts, and once more when it comes again.
func TestComplaints(t *testing.T) {
	lines := 0
	s := &Signer{Log: funcr.New(func(string, string) { lines++ }, funcr.Options{})}
	lost := errors.New("the CA is lost")
	for _, err := range []error{lost, lost, nil, lost} {
		s.complain(err)
	}
	if lines != 2 {
		t.Errorf("logged %d times, want 2", lines)
	}
}

// A rotation that is asked for by annotation goes on step by step, and both Secrets follow.
func TestEdgeCAIsRotated(t *testing.T) {
	s := newSigner(t)
	users := []string{"envoy-0 of us"}
	s.OldUsers = func(string) []string { return users }
	step := func(request string) registration.CA {
		t.Helper()
		secret := s.read(t, registration.EdgeCASecret)
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, registration.AnnotationRotate, request)
		testkit.Must(t, s.Client.Update(t.Context(), secret))
		testkit.Must(t, s.ensure(t.Context()))
		ca := registration.CAOf(s.read(t, registration.EdgeCASecret).Data)
		if got := s.read(t, registration.XDSSecret).Data["ca.crt"]; !bytes.Equal(got, ca.Bundle()) {
			t.Errorf("after %s, edges and hub do not trust what they should:\n%s", request, got)
		}
		return ca
	}
	testkit.Must(t, s.ensure(t.Context()))
	first := registration.CAOf(s.read(t, registration.EdgeCASecret).Data)
	server := s.read(t, registration.XDSSecret).Data["tls.crt"]

	announced := step(registration.RotateStart)
	if announced.Name() != first.Name() || len(announced.Next.Certificate) == 0 || !bytes.Equal(server, s.read(t, registration.XDSSecret).Data["tls.crt"]) {
		t.Error("step 1 is not just one more CA that is trusted")
	}
	secret := s.read(t, registration.EdgeCASecret)
	longAgo := registration.CAOf(secret.Data)
	var err error
	longAgo.Next, err = registration.NewEdgeCA(time.Now().Add(-registration.NextCAWait), rand.Reader)
	testkit.Must(t, err)
	secret.Data = longAgo.Data()
	testkit.Must(t, s.Client.Update(t.Context(), secret))
	testkit.Must(t, s.ensure(t.Context()))
	switched := registration.CAOf(s.read(t, registration.EdgeCASecret).Data)
	if switched.Name() == first.Name() || !bytes.Equal(switched.Old, first.Certificate) || bytes.Equal(server, s.read(t, registration.XDSSecret).Data["tls.crt"]) {
		t.Error("step 2: the next CA does not sign, or the first is not trusted, or the server kept its certificate")
	}
	if held := step(registration.RotateFinish); len(held.Old) == 0 {
		t.Error("step 3 was taken although an edge uses the old CA")
	}
	users = nil
	testkit.Must(t, s.ensure(t.Context())) // the request still stands
	if done := registration.CAOf(s.read(t, registration.EdgeCASecret).Data); len(done.Old) > 0 {
		t.Error("step 3 was not taken")
	}
}
