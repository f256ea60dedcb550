package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// The leader makes what is missing, once. A serving certificate that lacks a name is signed anew by the same CA. A CA
// that does not parse is an error and is never replaced, because it signed every edge's certificate.
func TestSigner(t *testing.T) {
	c, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "signer-"}}
	testkit.Must(t, c.Create(t.Context(), namespace))
	s := &Signer{Client: c, Live: c, Namespace: namespace.Name, Names: []string{"hub.example.com"}, Log: logr.Discard()}
	read := func(name string) (corev1.Secret, string) {
		var secret corev1.Secret
		testkit.Must(t, c.Get(context.Background(), client.ObjectKey{Namespace: namespace.Name, Name: name}, &secret))
		return secret, secret.ResourceVersion
	}
	testkit.Must(t, s.ensure(t.Context()))
	ca, caVersion := read(registration.EdgeCASecret)
	server, version := read(registration.XDSSecret)
	if _, err := tls.X509KeyPair(server.Data["tls.crt"], server.Data["tls.key"]); err != nil || string(server.Data["ca.crt"]) != string(ca.Data["tls.crt"]) {
		t.Errorf("the serving certificate is not usable: %v", err)
	}
	testkit.Must(t, s.ensure(t.Context()))
	if _, again := read(registration.XDSSecret); again != version {
		t.Error("a good certificate was made anew")
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
