package envoy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync"
)

// One bad certificate among many spoils one listener at most: Build refuses whatever Envoy would, and a listener with a good
// certificate beside a bad one is served with the good one.
func TestBadCertificatesOnARealEnvoy(t *testing.T) {
	e, port := startEdge(t), freePort(t)
	in := gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Pools: []v1alpha1.EdgePool{{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}, Status: v1alpha1.EdgePoolStatus{
			Allocations: []v1alpha1.AddressAllocation{{Gateway: v1alpha1.GatewayReference{Namespace: "shop", Name: "gw"}, Address: "127.0.0.1"}}}}},
	}
	gw := gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "gw"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway"}}
	secret := func(name string, change func(c *x509.Certificate), spoil func(chain, key []byte) ([]byte, []byte)) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name + ".example"}, NotAfter: time.Now().Add(time.Hour)}
		if change != nil {
			change(template)
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		encoded, _ := x509.MarshalPKCS8PrivateKey(key)
		chain, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
		if spoil != nil {
			chain, private = spoil(chain, private)
		}
		in.Secrets = append(in.Secrets, corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: private}})
	}
	listener := func(name string, secrets ...gatewayv1.ObjectName) {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(name), Port: gatewayv1.PortNumber(port), Protocol: gatewayv1.HTTPSProtocolType,
			Hostname: ptr(gatewayv1.Hostname(name + ".example")), TLS: &gatewayv1.ListenerTLSConfig{}}
		for _, s := range secrets {
			l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, gatewayv1.SecretObjectReference{Name: s})
		}
		gw.Spec.Listeners = append(gw.Spec.Listeners, l)
	}
	bad := map[string]func(c *x509.Certificate){
		"staple": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
		},
		"nameless":     func(c *x509.Certificate) { c.DNSNames, c.Subject.Organization = nil, []string{"shop"} },
		"encipherment": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"cut":          nil,
	}
	secret("good", nil, nil)
	secret("other", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, nil)
	listener("good", "good")
	for name, change := range bad {
		var spoil func(chain, key []byte) ([]byte, []byte)
		if name == "cut" {
			spoil = func(chain, key []byte) ([]byte, []byte) { return bytes.TrimSuffix(chain, []byte("-----\n")), key }
		}
		secret(name, change, spoil)
		listener(name, gatewayv1.ObjectName(name))
		listener("both-"+name, gatewayv1.ObjectName(name), "other")
	}
	in.Gateways = []gatewayv1.Gateway{gw}
	p := lbsync.ProgramFor(gateway.Build(in).Model, lbsync.PoolRef{Pool: "us", Region: "us"})
	for i := range p.Listeners {
		p.Listeners[i].Address = netip.MustParseAddr("127.0.0.1")
	}
	e.apply(p)
	want := map[string]string{"good": "good.example: 404"}
	for name := range bad {
		want[name], want["both-"+name] = "closed", "other.example: 404"
	}
	for name, want := range want {
		if got := askTLS(port, name+".example", name+".example", "h2"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if stats := e.get("/stats?filter=sds.*update_rejected"); bytes.Contains([]byte(stats), []byte("rejected: 1")) {
		t.Errorf("an edge refused a certificate: %s", stats)
	}
}
