package main

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

func identityIn(t *testing.T, secret corev1.Secret) registration.EdgeIdentity {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("ca.crt holds no certificate")
	}
	block, _ := pem.Decode(secret.Data["tls.crt"])
	certificate, err := x509.ParseCertificate(block.Bytes)
	testkit.Must(t, err)
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Fatal("the Secret's certificate is not its CA's: ", err)
	}
	id, err := registration.EdgeIdentityOf(certificate)
	testkit.Must(t, err)
	return id
}

// A fleet admin signs the certificate of the edges in us-a. Without hub, pool or
// namespace the error says what to do.
func TestEdgeCertificate(t *testing.T) {
	h := newHub(t)
	sign := []string{"edge", "certificate", "--pool", "us", "--region", "us", "--zone", "us-a"}
	signWith := func(more ...string) []string { return append(append([]string{}, sign...), more...) }

	h.wantError(`EdgePool "us" does not exist; create it with region "us"`, sign...)
	h.create(&v1alpha1.EdgePool{
		ObjectMeta: metav1.ObjectMeta{Name: "us"},
		Spec:       v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}},
	})
	h.wantError(`EdgePool "us" is in region "us", not "eu"`, "edge", "certificate", "--pool", "us", "--region", "eu", "--zone", "eu-a")
	h.wantError(`zone "US_A" of an edge`, "edge", "certificate", "--pool", "us", "--region", "us", "--zone", "US_A")
	h.wantError(`required flag(s) "zone" not set`, "edge", "certificate", "--pool", "us", "--region", "us")
	h.wantError(`--valid -1h0m0s: use a time above 0`, signWith("--valid", "-1h")...)
	h.wantError(`Secret crossway-system/crossway-edge-ca does not exist; the hub makes it`, sign...)

	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace}})
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: registration.EdgeCASecret},
		Data:       map[string][]byte{"tls.crt": ca.Certificate, "tls.key": ca.Key},
	})
	h.wantError(`namespace "nowhere" does not exist`, signWith("--namespace", "nowhere")...)

	want := registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us-a"}
	var first, second corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "crossway-edge-us"}
	for _, c := range []struct {
		act    string
		secret *corev1.Secret
	}{{"created", &first}, {"replaced", &second}} {
		out, err := h.crossway(sign...)
		if err != nil || !strings.HasPrefix(out, "Secret crossway-system/crossway-edge-us "+c.act+": "+want.String()) {
			t.Fatalf("printed %q, %v", out, err)
		}
		testkit.Must(t, h.Get(t.Context(), key, c.secret))
		got := identityIn(t, *c.secret)
		if got.PoolUID == "" || len(got.Credential) != 10 {
			t.Errorf("%s a certificate without the pool's UID or a credential's ID: %+v", c.act, got)
		}
		got.PoolUID, got.Credential = "", ""
		if got != want || c.secret.Type != corev1.SecretTypeTLS {
			t.Errorf("%s a Secret of type %s for %s", c.act, c.secret.Type, got)
		}
	}
	if bytes.Equal(first.Data["tls.key"], second.Data["tls.key"]) {
		t.Error("signed again with the same key")
	}

	h.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "theirs"}})
	h.wantError(`Secret crossway-system/theirs exists and is not an edge's certificate`, signWith("--secret-name", "theirs")...)
}

// For edges in another cluster the Secret is printed and nothing is written.
func TestEdgeCertificateIsPrinted(t *testing.T) {
	h := newHub(t)
	h.create(&v1alpha1.EdgePool{
		ObjectMeta: metav1.ObjectMeta{Name: "eu"},
		Spec:       v1alpha1.EdgePoolSpec{Region: "eu", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.2.0/24"}}},
	})
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "another-hub"}})
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "another-hub", Name: registration.EdgeCASecret},
		Data:       map[string][]byte{"tls.crt": ca.Certificate, "tls.key": ca.Key},
	})
	out, err := h.crossway("edge", "certificate", "--pool", "eu", "--region", "eu", "--zone", "eu-a",
		"--hub-namespace", "another-hub", "--namespace", "edges", "--output", "yaml")
	testkit.Must(t, err)
	var printed corev1.Secret
	testkit.Must(t, yaml.UnmarshalStrict([]byte(out), &printed))
	if got := identityIn(t, printed); got.Pool != "eu" || printed.Kind != "Secret" || printed.Namespace != "edges" {
		t.Errorf("printed %s %s/%s for %s", printed.Kind, printed.Namespace, printed.Name, got)
	}
	var secrets corev1.SecretList
	if err := h.List(t.Context(), &secrets, client.HasLabels{registration.LabelEdgePool}, client.InNamespace("edges")); err != nil || len(secrets.Items) > 0 {
		t.Errorf("wrote %d Secrets, %v", len(secrets.Items), err)
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var out bytes.Buffer
		testkit.Must(t, run(t.Context(), []string{arg}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}))
		if !strings.HasPrefix(out.String(), "crossway ") {
			t.Errorf("%s printed %q", arg, out.String())
		}
	}
}
