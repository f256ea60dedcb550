package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// Secrets of the agent in its own namespace, and the key of the token in the first.
const (
	JoinSecret       = "crossway-join"
	JoinTokenKey     = "token"
	CredentialSecret = "crossway-hub-credential"
)

// Credential is what one joining gave this cluster: how it calls the hub, for which member
// it does, and which cluster it was made for.
type Credential struct {
	Server     string // URL of the hub's API server
	CA         []byte // who signed its certificate, PEM
	Member     fleet.ClusterName
	ID         string
	ClusterUID string
	JoinedBy   string // digest of the join token that it was given for

	Certificate, Key []byte // PEM
	Token            string // or a ServiceAccount's token
}

// pending is a certificate that was asked for. It is stored before the request is sent, so
// that an agent which restarts goes on with it.
type pending struct {
	For string // digest of the join token; of a renewal the credential's ID
	ID  string // of the credential that it is for
	CSR string // name on the hub
	Key []byte // PEM
	// Denied is what the hub said when it refused: nothing is asked again with that token.
	Denied string
}

// Keys of Secret crossway-hub-credential.
const (
	keyServer, keyCA, keyMember, keyID         = "server", "ca.crt", "member", "id"
	keyUID, keyJoinedBy, keyToken              = "cluster-uid", "joined-by", "token"
	keyCertificate, keyPrivate                 = corev1.TLSCertKey, corev1.TLSPrivateKeyKey
	keyPendingFor, keyPendingID, keyPendingCSR = "pending-for", "pending-id", "pending-csr"
	keyPendingKey, keyPendingDenied            = "pending-key", "pending-denied"
)

// readCredential reads the Secret; nil: there is none in it.
func readCredential(s *corev1.Secret) *Credential {
	if s == nil || len(s.Data[keyID]) == 0 {
		return nil
	}
	text := func(key string) string { return string(s.Data[key]) }
	return &Credential{
		Server: text(keyServer), CA: s.Data[keyCA], Member: fleet.ClusterName(text(keyMember)), ID: text(keyID), ClusterUID: text(keyUID),
		JoinedBy: text(keyJoinedBy), Certificate: s.Data[keyCertificate], Key: s.Data[keyPrivate], Token: text(keyToken),
	}
}

// MemberOf is the member whose credential Secret crossway-hub-credential has; empty: there is none in it.
func MemberOf(s *corev1.Secret) fleet.ClusterName {
	if c := readCredential(s); c != nil {
		return c.Member
	}
	return ""
}

// Data is what Secret crossway-hub-credential has with this credential and nothing pending.
func (c *Credential) Data() map[string][]byte {
	data := map[string][]byte{
		keyServer: []byte(c.Server), keyCA: c.CA, keyMember: []byte(c.Member), keyID: []byte(c.ID), keyUID: []byte(c.ClusterUID), keyJoinedBy: []byte(c.JoinedBy),
	}
	if c.Token != "" {
		data[keyToken] = []byte(c.Token)
	} else {
		data[keyCertificate], data[keyPrivate] = c.Certificate, c.Key
	}
	return data
}

func readPending(s *corev1.Secret) pending {
	if s == nil {
		return pending{}
	}
	return pending{For: string(s.Data[keyPendingFor]), ID: string(s.Data[keyPendingID]), CSR: string(s.Data[keyPendingCSR]), Key: s.Data[keyPendingKey],
		Denied: string(s.Data[keyPendingDenied])}
}

func (p pending) data() map[string][]byte {
	return map[string][]byte{keyPendingFor: []byte(p.For), keyPendingID: []byte(p.ID), keyPendingCSR: []byte(p.CSR), keyPendingKey: p.Key,
		keyPendingDenied: []byte(p.Denied)}
}

// config is the hub with this credential.
func (c *Credential) config() *rest.Config {
	return &rest.Config{Host: c.Server, BearerToken: c.Token, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA, CertData: c.Certificate, KeyData: c.Key}}
}

// life is from when until when the credential holds, by the hub's clock.
func (c *Credential) life() (from, until time.Time, err error) {
	if c.Token != "" {
		claims, err := registration.ReadToken(c.Token)
		return claims.Issued, claims.Ends, err
	}
	block, _ := pem.Decode(c.Certificate)
	if block == nil {
		return from, until, errors.New("the certificate is not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return from, until, fmt.Errorf("parse the certificate: %w", err)
	}
	return certificate.NotBefore, certificate.NotAfter, nil
}

// digest names a join token without giving it away.
func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}
