package main

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/registration"
)

// The leader makes what is missing, once; a serving certificate that lacks a name is signed anew by the same CA; a CA
// that does not parse is told, never replaced: every edge's certificate hangs on it.
func TestSigner(t *testing.T) {
	c, err := client.New(envtestkit.Config(t), client.Options{Scheme: newScheme()})
	check(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "signer-"}}
	check(t, c.Create(t.Context(), namespace))
	s := &signer{client: c, live: c, namespace: namespace.Name, names: []string{"hub.example.com"}, log: logr.Discard()}
	read := func(name string) (corev1.Secret, string) {
		var secret corev1.Secret
		check(t, c.Get(context.Background(), client.ObjectKey{Namespace: namespace.Name, Name: name}, &secret))
		return secret, secret.ResourceVersion
	}
	check(t, s.ensure(t.Context()))
	ca, caVersion := read(registration.EdgeCASecret)
	server, version := read(registration.XDSSecret)
	if _, err := tlsOf(&server); err != nil || string(server.Data["ca.crt"]) != string(ca.Data["tls.crt"]) {
		t.Errorf("the serving certificate is not usable: %v", err)
	}
	check(t, s.ensure(t.Context()))
	if _, again := read(registration.XDSSecret); again != version {
		t.Error("a good certificate was made anew")
	}
	s.names = []string{"hub.example.com", "10.0.0.1"}
	check(t, s.ensure(t.Context()))
	if _, again := read(registration.XDSSecret); again == version {
		t.Error("a certificate without one of the names was kept")
	}
	if _, again := read(registration.EdgeCASecret); again != caVersion {
		t.Error("the CA was written again")
	}
	ca.Data["tls.crt"] = []byte("not a certificate")
	check(t, c.Update(t.Context(), &ca))
	_, caVersion = read(registration.EdgeCASecret)
	if s.ensure(t.Context()) == nil {
		t.Error("a CA that is none passes")
	}
	if _, again := read(registration.EdgeCASecret); again != caVersion {
		t.Error("a CA that does not parse was replaced")
	}
}
