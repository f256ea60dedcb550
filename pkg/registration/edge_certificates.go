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
	// the hub's xDS serving certificate, as CA.Data has it.
	EdgeCASecret = "crossway-edge-ca"
	// XDSSecret holds the hub's xDS serving certificate: tls.crt, tls.key, ca.crt; and
	// versions.key, which never changes.
	XDSSecret = "crossway-xds"
	// ReplicaSecret holds the certificate by which replicas of the hub know each other:
	// tls.crt, tls.key, ca.crt. All replicas have the same.
	ReplicaSecret = "crossway-hub-replica"
	// CAKey is the key of the CA's certificates in XDSSecret and in edges' Secrets: one,
	// and during a rotation two.
	CAKey = "ca.crt"
	// VersionKey names the key with which the hub's replicas seal versions of load
	// assignments; VersionKeyLength is its least length in bytes.
	VersionKey       = "versions.key"
	VersionKeyLength = 32

	// EdgeCALife and ServerLife are how long the CA's and the serving certificate are valid.
	EdgeCALife = 10 * 365 * 24 * time.Hour
	ServerLife = 365 * 24 * time.Hour
	// DefaultEdgeLife is how long an edge's certificate is valid by default. It is renewed
	// at a third of that, and so outlasts ten days without a hub. MaxEdgeLife is the most.
	DefaultEdgeLife = 30 * 24 * time.Hour
	MaxEdgeLife     = 365 * 24 * time.Hour

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
	CA Pair
	// Chain is sent with every certificate: PEM, maybe empty (CA.Cross).
	Chain  []byte
	Now    time.Time
	Random io.Reader // crypto/rand.Reader outside of tests
}

// NewEdgeCA makes the CA of a hub's edges. It signs the certificates with which
// edges and hub authenticate to each other, and no others.
func NewEdgeCA(now time.Time, random io.Reader) (Pair, error) { return EdgeCA.new(now, random) }

// CAKind is which of the hub's CAs one is.
type CAKind struct {
	name         string        // begins the common name
	life, leaves time.Duration // how long the CA lives, and at most what it signs
}

// EdgeCA and MemberCA are the hub's CAs: that of edges, in EdgeCASecret, and that of
// gossip, in MemberCASecret. Neither signs for the other's peers.
var (
	EdgeCA   = CAKind{name: EdgeCASecret, life: EdgeCALife, leaves: MaxEdgeLife}
	MemberCA = CAKind{name: MemberCASecret, life: MemberCALife, leaves: MaxMemberLife}
)

func (k CAKind) new(now time.Time, random io.Reader) (Pair, error) {
	key, err := newKey(random)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(random, "", now, k.life)
	if err != nil {
		return Pair{}, err
	}
	// The name tells CAs apart: for people, and where a certificate names its issuer.
	template.Subject.CommonName = fmt.Sprintf("%s-%x", k.name, template.SerialNumber.Bytes()[:5])
	template.IsCA, template.MaxPathLen = true, 1 // 1: the CA that follows (CA.Cross)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	certificate, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return Pair{}, err
	}
	encoded, err := encodeKey(key)
	return Pair{Certificate: certificate, Key: encoded}, err
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
	fill, err := edgeTemplate(id, valid)
	if err != nil {
		return Pair{}, err
	}
	return issuer.issue(edgeName(id), valid, fill)
}

// SignEdgeRequest signs what an edge asks for by a certificate request (PKCS #10, DER or
// PEM), of which only the public key counts. The result is PEM: the certificate and the
// issuer's chain.
func SignEdgeRequest(issuer Issuer, id EdgeIdentity, request []byte, valid time.Duration) ([]byte, error) {
	fill, err := edgeTemplate(id, valid)
	if err != nil {
		return nil, err
	}
	key, err := requestedKey(request)
	if err != nil {
		return nil, err
	}
	return issuer.certify(key, edgeName(id), valid, fill)
}

func edgeName(id EdgeIdentity) string { return "crossway-edge-" + id.Pool }

func edgeTemplate(id EdgeIdentity, valid time.Duration) (func(*x509.Certificate), error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if valid <= 0 || valid > MaxEdgeLife {
		return nil, fmt.Errorf("edge certificate: valid for %s; use a time above 0 and of at most %s", valid, MaxEdgeLife)
	}
	return func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.URIs = []*url.URL{id.uri()}
		c.Subject.SerialNumber = id.Credential
		if id.PoolUID != "" {
			c.Subject.OrganizationalUnit = []string{id.PoolUID}
		}
	}, nil
}

// requestedKey is the public key of a request that its owner has signed.
func requestedKey(request []byte) (*ecdsa.PublicKey, error) {
	if block, _ := pem.Decode(request); block != nil {
		request = block.Bytes
	}
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := parsed.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: use a key for ECDSA on curve P-256")
	}
	return key, nil
}

// NewEdgeRequest makes a key and a request for its certificate (PEM), for who asks the
// hub. The request names nobody: the hub knows who asks.
func NewEdgeRequest(random io.Reader) (key, request []byte, err error) {
	return newRequest(random, "crossway-edge")
}

func newRequest(random io.Reader, name string) (key, request []byte, err error) {
	private, err := newKey(random)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(random, template, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
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
	if !bytes.HasSuffix(server.Certificate, issuer.Chain) {
		return "sent without the certificate that the former edge CA signed"
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
	key, err := newKey(i.Random)
	if err != nil {
		return Pair{}, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	certificate, err := i.certify(&key.PublicKey, name, life, fill)
	return Pair{Certificate: certificate, Key: encoded}, err
}

// certify signs a certificate of a public key. The result has the issuer's chain, too.
func (i Issuer) certify(key *ecdsa.PublicKey, name string, life time.Duration, fill func(*x509.Certificate)) ([]byte, error) {
	ca, caKey, err := parsePair(i.CA)
	if err != nil {
		return nil, fmt.Errorf("edge CA: %w", err)
	}
	if !ca.IsCA {
		return nil, fmt.Errorf("edge CA: certificate %q is not a CA", ca.Subject.CommonName)
	}
	if !i.Now.Before(ca.NotAfter) {
		return nil, fmt.Errorf("edge CA ended %s; start anew (docs/install.md, \"When the edge CA is lost\"), and join every edge again", ca.NotAfter.Format(time.RFC3339))
	}
	template, err := newTemplate(i.Random, name, i.Now, life)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	fill(template)
	certificate, err := sign(template, ca, key, caKey)
	if err != nil {
		return nil, err
	}
	return slices.Concat(certificate, i.Chain), nil
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
func sign(template, parent *x509.Certificate, key *ecdsa.PublicKey, parentKey *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(nil, template, parent, key, parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", template.Subject.CommonName, err)
	}
	return encodeCertificate(der), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
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
