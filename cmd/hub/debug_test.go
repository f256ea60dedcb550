package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// Dumps show the Model, the rollout and the edges of a running hub. They name a
// Secret and never contain its data.
func TestDebugDumpsHaveNoSecretData(t *testing.T) {
	f := newFixture(t)
	f.startHub()
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	pair, err := registration.NewServerCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, []string{"store.example.com"})
	testkit.Must(t, err)
	f.make(
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "127.77.1.0/24"}}}},
		&v1alpha1.GatewayParameters{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "crossway-system"}, Spec: v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway-global"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController,
			ParametersRef: &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "global", Namespace: ptr.To(gatewayv1.Namespace("crossway-system"))}}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "store-cert", Namespace: "shop"}, Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key}},
		&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "secure", Namespace: "shop"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
			Listeners: []gatewayv1.Listener{{Name: "https", Port: 18443, Protocol: gatewayv1.HTTPSProtocolType,
				TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "store-cert"}}}}}}})
	testkit.Eventually(t, "the Model names the Secret", func() bool { return strings.Contains(f.dump("model"), "Secret shop/store-cert [redacted]") })
	testkit.Eventually(t, "the rollout has a pool", func() bool { return strings.Contains(f.dump("rollout"), "pool us:") })
	testkit.Eventually(t, "the server has a snapshot", func() bool { return strings.Contains(f.dump("edges"), "pool us, snapshot") })
	testkit.Eventually(t, "the state has a region", func() bool { return strings.Contains(f.dump("state"), "Regions:\n  us:") })
	testkit.Eventually(t, "the member API has a dump", func() bool { return f.dump("members") != "" })
	testkit.Eventually(t, "gossip has this replica", func() bool { return strings.Contains(f.dump("gossip"), ": Alive") })
	for _, name := range []string{"model", "members", "state", "rollout", "edges", "replicas", "gossip"} {
		text := f.dump(name)
		if strings.Contains(text, base64.StdEncoding.EncodeToString(pair.Key)[:40]) { // as JSON and YAML have bytes
			t.Errorf("/debug/%s has the private key", name)
		}
		for i, line := range bytes.Split(bytes.TrimSpace(pair.Key), []byte("\n")) {
			if strings.Contains(text, string(line)) || strings.Contains(text, base64.StdEncoding.EncodeToString(line)) {
				t.Errorf("/debug/%s has line %d of the private key", name, i)
			}
		}
	}
	if list := f.dump(""); !strings.Contains(list, "/debug/model\n") {
		t.Errorf("the list is %q", list)
	}
}

// dump is the text at /debug/<name>, empty while there is none.
func (f *fixture) dump(name string) string {
	answer, err := http.Get("http://" + f.debug + "/debug/" + name)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}
