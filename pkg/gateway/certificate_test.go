package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/testkit"
)

// addSecret adds a Secret with a certificate of a kind to a story.
func (f *fixture) addSecret(name, kind string) {
	n := objectName(name)
	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name, Generation: 1}, Type: corev1.SecretTypeTLS, Data: certificate(f.t, kind)}
	for i := range f.in.Secrets {
		if f.in.Secrets[i].Namespace == n.Namespace && f.in.Secrets[i].Name == n.Name {
			f.in.Secrets[i] = secret
			return
		}
	}
	f.in.Secrets = append(f.in.Secrets, secret)
}

var (
	certificatesMutex sync.Mutex // guards certificates
	certificates      = map[string]map[string][]byte{}
)

// certificate is the data of a Secret, generated once for each kind.
func certificate(t testing.TB, kind string) map[string][]byte {
	certificatesMutex.Lock()
	defer certificatesMutex.Unlock()
	if data, found := certificates[kind]; found {
		return data
	}
	data := newCertificate(t, kind)
	certificates[kind] = data
	return data
}

func newCertificate(t testing.TB, kind string) map[string][]byte {
	key := newKey(t, kind)
	chain, private := selfSigned(t, key, kind), encodeKey(t, key)
	switch kind {
	case "mismatch":
		private = encodeKey(t, newKey(t, "good"))
	case "garbage":
		chain = []byte("not a certificate")
	case "bad-second-block":
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})...)
	case "cut-off":
		chain = append(chain, []byte("-----BEGIN CERTIFICATE-----\nMIIB")...)
	case "key-in-chain":
		chain = append(chain, private...)
	case "encrypted":
		private = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	case "no-key":
		private = nil
	case "text-around":
		chain = append([]byte("Subject: me\n"), chain...)
	}
	return map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: private}
}

func newKey(t testing.TB, kind string) crypto.Signer {
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa1024":
		t.Setenv("GODEBUG", "rsa1024min=0") // Go itself makes none so short
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case "rsa2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "p224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	testkit.Must(t, err)
	return key
}

func selfSigned(t testing.TB, key crypto.Signer, kind string) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0), DNSNames: []string{"shop.example.com"}}
	switch kind {
	case "must-staple":
		template.ExtraExtensions = []pkix.Extension{{Id: mustStaple, Value: []byte{0x30, 3, 2, 1, 5}}}
	case "no-names":
		template.DNSNames, template.EmailAddresses = nil, []string{"a@example.com"}
	case "ecdsa-encipherment":
		template.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.Must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(t testing.TB, key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	testkit.Must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
