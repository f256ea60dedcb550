package gossipkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"
)

// CA signs the certificates of nodes.
type CA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewCA returns a CA of its own.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gossipkit"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &CA{certificate, key}, err
}

// Sign returns a certificate with a URI SAN and a key.
func (ca *CA) Sign(uri string, life time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	san, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, URIs: []*url.URL{san}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Source is a node's certificate, which can be replaced. It implements gossip.TLS.
type Source struct {
	root *x509.Certificate

	mu          sync.Mutex // guards certificate
	certificate *tls.Certificate
}

// Source returns one with a certificate.
func (ca *CA) Source(uri string, life time.Duration) (*Source, error) {
	certificate, err := ca.Sign(uri, life)
	return &Source{root: ca.certificate, certificate: certificate}, err
}

// Certificate implements gossip.TLS.
func (s *Source) Certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate, nil
}

// Roots implements gossip.TLS.
func (s *Source) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.root)
	return pool
}

// Replace presents another certificate from now on.
func (s *Source) Replace(certificate *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificate = certificate
}

// PEM returns a certificate, its key and the CA as text, for a node in another process.
func (ca *CA) PEM(uri string, life time.Duration) (string, error) {
	certificate, err := ca.Sign(uri, life)
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, block := range []pem.Block{{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}, {Type: "CERTIFICATE", Bytes: ca.certificate.Raw}} {
		if err := pem.Encode(&text, &block); err != nil {
			return "", err
		}
	}
	return text.String(), nil
}

// ParsePEM reads what CA.PEM returns.
func ParsePEM(text string) (*Source, error) {
	certificate, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		return nil, err
	}
	if len(certificate.Certificate) != 2 {
		return nil, fmt.Errorf("%d certificates, want one and its CA", len(certificate.Certificate))
	}
	root, err := x509.ParseCertificate(certificate.Certificate[1])
	if err != nil {
		return nil, err
	}
	certificate.Certificate = certificate.Certificate[:1]
	return &Source{root: root, certificate: &certificate}, nil
}
