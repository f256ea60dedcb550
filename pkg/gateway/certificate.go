package gateway

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// minRSABits is the shortest RSA key that Envoy accepts.
const minRSABits = 2048

// certificateProblem says why Envoy would reject a Secret's certificate, or "".
// An expired certificate is served: whether to replace it is its owner's decision.
func certificateProblem(secret *corev1.Secret) string {
	name := secret.Namespace + "/" + secret.Name
	chain, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if len(chain) == 0 || len(key) == 0 {
		return fmt.Sprintf("Secret %q has no tls.crt or no tls.key; put a PEM certificate chain and its key there", name)
	}
	if err := checkChain(chain); err != nil {
		return fmt.Sprintf("Secret %q: tls.crt is not a PEM certificate chain: %v", name, err)
	}
	if strings.Contains(string(key), "ENCRYPTED") {
		return fmt.Sprintf("Secret %q: tls.key is encrypted; put the key there without a passphrase", name)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Sprintf("Secret %q: tls.crt and tls.key do not make a pair: %s", name, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if err := cmp.Or(checkKey(pair.Leaf.PublicKey), checkLeaf(pair.Leaf)); err != nil {
		return fmt.Sprintf("Secret %q: %v", name, err)
	}
	return ""
}

// mustStaple is the extension by which a certificate demands OCSP responses (RFC 7633).
// Its value lists features as integers; 5 is status_request.
var (
	mustStaple    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	statusRequest = 5
)

// checkLeaf finds certificates that Envoy refuses whatever their key is. All were tried
// on Envoy 1.40.
func checkLeaf(leaf *x509.Certificate) error {
	if _, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey); isECDSA && leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("its key usage does not allow digital signatures, which TLS needs of an ECDSA key; issue it with that usage")
	}
	if leaf.Subject.CommonName == "" && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
		return errors.New("it is for no name; issue it with DNS names")
	}
	for _, extension := range leaf.Extensions {
		var features []int
		if !extension.Id.Equal(mustStaple) {
			continue
		}
		if _, err := asn1.Unmarshal(extension.Value, &features); err != nil || slices.Contains(features, statusRequest) {
			return errors.New("it demands OCSP stapling (must-staple), which edges do not do; issue it without")
		}
	}
	return nil
}

// checkChain parses every block, because Envoy rejects a chain if only its last
// block is bad.
func checkChain(chain []byte) error {
	certificates := 0
	for rest := chain; ; certificates++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("block %d is a %q", certificates+1, shortened(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("block %d: %w", certificates+1, err)
		}
	}
	switch begun := bytes.Count(chain, []byte("-----BEGIN ")); {
	case certificates == 0:
		return errors.New("it has no certificate")
	case begun != certificates:
		return fmt.Errorf("%d blocks begin, but %d are whole", begun, certificates)
	default:
		return nil
	}
}

func checkKey(public any) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("its RSA key has %d bits; use one of at least %d", bits, minRSABits)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			return errors.New("its ECDSA curve is not supported; use P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
	default:
		return errors.New("its key is of a kind that is not supported; use RSA, ECDSA or Ed25519")
	}
	return nil
}
