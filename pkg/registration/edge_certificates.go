package registration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

const (
	// EdgeCASecret holds the CA that signs the edges' client certificates and
	// the hub's xDS serving certificate: tls.crt, tls.key.
	EdgeCASecret = "crossway-edge-ca"
	// XDSSecret holds the hub's xDS serving certificate: tls.crt, tls.key, ca.crt; and
	// versions.key, which never changes.
	XDSSecret = "crossway-xds"
	// CAKey is the key of the CA's certificate in XDSSecret.
	CAKey = "ca.crt"
	// VersionKey names the key with which the hub's replicas seal versions of load
	// assignments; VersionKeyLength is its least length in bytes.
	VersionKey       = "versions.key"
	VersionKeyLength = 32

	// EdgeCALife and ServerLife are how long the CA's and the serving certificate are valid.
	EdgeCALife = 10 * 365 * 24 * time.Hour
	ServerLife = 365 * 24 * time.Hour
	// DefaultEdgeLife is how long an edge's certificate is valid by default.
	DefaultEdgeLife = 365 * 24 * time.Hour

	// maxClockSkew is how much the clocks of hub and edges may differ.
	maxClockSkew = 5 * time.Minute
)

// Pair is a certificate and its private key, PEM, as in a kubernetes.io/tls Secret.
type Pair struct {
	Certificate []byte // PEM CERTIFICATE
	Key         []byte // PEM PRIVATE KEY (PKCS #8), ECDSA P-256
}

// Issuer signs certificates. Time and randomness are arguments, so that equal
// Issuers sign equal bytes.
type Issuer struct {
	CA     Pair
	Now    time.Time
	Random io.Reader // crypto/rand.Reader outside of tests
}

// NewEdgeCA makes the CA of a hub's edges. It signs the certificates with which
// edges and hub authenticate to each other, and no others.
func NewEdgeCA(now time.Time, random io.Reader) (Pair, error) {
	key, err := newKey(random)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(random, "crossway-edge-ca", now, EdgeCALife)
	if err != nil {
		return Pair{}, err
	}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return sign(template, template, key, key)
}

// NewVersionKey makes a key for XDSSecret.
func NewVersionKey() []byte {
	key := make([]byte, VersionKeyLength)
	_, _ = rand.Read(key) // which never fails
	return key
}

// NewServerCertificate signs the hub's xDS serving certificate for the DNS names
// and IP addresses that edges dial.
func NewServerCertificate(issuer Issuer, names []string) (Pair, error) {
	if len(names) == 0 {
		return Pair{}, errors.New("xDS serving certificate: name at least one DNS name or address that edges dial")
	}
	return issuer.issue("crossway-xds", ServerLife, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, name := range names {
			if ip := net.ParseIP(name); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, name)
			}
		}
	})
}

// NewEdgeCertificate signs an edge's client certificate. It is valid for the given
// time, but never longer than the CA. Check the identity with CheckEdge before.
func NewEdgeCertificate(issuer Issuer, id EdgeIdentity, valid time.Duration) (Pair, error) {
	if err := id.Validate(); err != nil {
		return Pair{}, err
	}
	if valid <= 0 {
		return Pair{}, fmt.Errorf("edge certificate: valid for %s; use a time above 0", valid)
	}
	return issuer.issue("crossway-edge-"+id.Pool, valid, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.URIs = []*url.URL{id.uri()}
	})
}

// ServerCertificateFault returns why the hub should sign a new xDS serving
// certificate: the present one does not parse, another CA signed it, a name is
// missing, or less than a third of its life is left. "": no reason.
func ServerCertificateFault(issuer Issuer, server Pair, names []string) string {
	ca, _, err := parsePair(issuer.CA)
	if err != nil {
		return "CA: " + err.Error()
	}
	leaf, _, err := parsePair(server)
	if err != nil {
		return err.Error()
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return "not signed by the edge CA"
	}
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return "does not name " + name
		}
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); leaf.NotAfter.Sub(issuer.Now) < life/3 {
		return "ends " + leaf.NotAfter.Format(time.RFC3339)
	}
	return ""
}

func (i Issuer) issue(name string, life time.Duration, fill func(*x509.Certificate)) (Pair, error) {
	ca, caKey, err := parsePair(i.CA)
	if err != nil {
		return Pair{}, fmt.Errorf("edge CA: %w", err)
	}
	if !ca.IsCA {
		return Pair{}, fmt.Errorf("edge CA: certificate %q is not a CA", ca.Subject.CommonName)
	}
	if !i.Now.Before(ca.NotAfter) {
		return Pair{}, fmt.Errorf("edge CA ended %s; delete Secret %s and restart the hub to make a new one, then sign every edge's certificate again", ca.NotAfter.Format(time.RFC3339), EdgeCASecret)
	}
	key, err := newKey(i.Random)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(i.Random, name, i.Now, life)
	if err != nil {
		return Pair{}, err
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	fill(template)
	return sign(template, ca, key, caKey)
}

func newTemplate(random io.Reader, name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive and never zero (RFC 5280, 4.1.2.2)
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name[:min(len(name), 64)]}, // 64: the bound of RFC 5280
		NotBefore:             now.Add(-maxClockSkew),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
	}, nil
}

// newKey reads a P-256 key. crypto/ecdsa.GenerateKey ignores its reader since
// Go 1.26, so the scalar is read here. One scalar of 2^32 is out of range; then
// the next is read.
func newKey(random io.Reader) (*ecdsa.PrivateKey, error) {
	scalar := make([]byte, 32)
	for {
		if _, err := io.ReadFull(random, scalar); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
		if slices.Max(scalar) == 0 {
			return nil, errors.New("read randomness: only zeros")
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err == nil {
			return key, nil
		}
	}
}

// sign signs deterministically (RFC 6979, hence no reader): equal arguments give
// equal bytes.
func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(nil, template, parent, key.Public(), parentKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate %s: %w", template.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key of %s: %w", template.Subject.CommonName, err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

func parsePair(pair Pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	if len(bytes.TrimSpace(pair.Certificate)) == 0 || len(bytes.TrimSpace(pair.Key)) == 0 {
		return nil, nil, errors.New("tls.crt or tls.key is empty")
	}
	parsed, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("key is a %T, not ECDSA", parsed.PrivateKey)
	}
	return parsed.Leaf, key, nil
}
