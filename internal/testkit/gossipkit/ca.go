package gossipkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
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
	ca *CA

	mu          sync.Mutex // guards certificate
	certificate *tls.Certificate
}

// Source returns one with a certificate.
func (ca *CA) Source(uri string, life time.Duration) (*Source, error) {
	certificate, err := ca.Sign(uri, life)
	return &Source{ca: ca, certificate: certificate}, err
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
	pool.AddCert(s.ca.certificate)
	return pool
}

// Replace presents another certificate from now on.
func (s *Source) Replace(certificate *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificate = certificate
}
