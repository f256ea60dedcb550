package registration

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// CA is the edge CA. During a rotation there are two: first the next one is trusted
// and does not sign yet, then the old one is trusted and does not sign any more.
type CA struct {
	Pair      // signs
	Next Pair // will sign; empty without a rotation
	Old  []byte
	// Cross is the CA's certificate once more, signed by the old CA. It goes with every
	// certificate that the CA signs: who knows only the old CA trusts them by it.
	Cross []byte
}

// Keys of EdgeCASecret beside tls.crt and tls.key.
const (
	nextCertificateKey = "next.crt"
	nextKeyKey         = "next.key"
	oldCertificateKey  = "old.crt"
	crossKey           = "cross.crt"
)

const (
	// AnnotationRotate of EdgeCASecret has the next step of a rotation: RotateStart,
	// RotateFinish, or RotateForce, which waits for no edge.
	AnnotationRotate = "crossway.dev/rotate"
	RotateStart      = "start"
	RotateFinish     = "finish"
	RotateForce      = "force"
	// AnnotationNewCA of an EdgeCASecret without a CA has a new one made, whose edges must
	// all join again.
	AnnotationNewCA = "crossway.dev/new-ca"

	// NextCAWait is how long a next CA is trusted before it signs: all replicas of the hub
	// know it by then.
	NextCAWait = time.Minute
)

// CAOf reads the data of EdgeCASecret.
func CAOf(data map[string][]byte) CA {
	return CA{
		Pair: Pair{Certificate: data["tls.crt"], Key: data["tls.key"]},
		Next: Pair{Certificate: data[nextCertificateKey], Key: data[nextKeyKey]},
		Old:  data[oldCertificateKey], Cross: data[crossKey],
	}
}

// Data is that of EdgeCASecret.
func (ca CA) Data() map[string][]byte {
	data := map[string][]byte{"tls.crt": ca.Certificate, "tls.key": ca.Key}
	for key, value := range map[string][]byte{
		nextCertificateKey: ca.Next.Certificate, nextKeyKey: ca.Next.Key, oldCertificateKey: ca.Old, crossKey: ca.Cross,
	} {
		if len(value) > 0 {
			data[key] = value
		}
	}
	return data
}

// Bundle is the certificates that hub and edges trust, the signing one first.
func (ca CA) Bundle() []byte { return slices.Concat(ca.Certificate, ca.Next.Certificate, ca.Old) }

// Missing says that there is no CA.
func (ca CA) Missing() bool {
	return len(bytes.TrimSpace(ca.Certificate)) == 0 && len(bytes.TrimSpace(ca.Key)) == 0
}

// Issuer signs with the CA.
func (ca CA) Issuer(now time.Time, random io.Reader) Issuer {
	return Issuer{CA: ca.Pair, Chain: ca.Cross, Now: now, Random: random}
}

// Name is the common name of the signing CA.
func (ca CA) Name() string { return CertificateName(ca.Certificate) }

// CertificateName is the common name of the first certificate in PEM; "" if there is none.
func CertificateName(certificate []byte) string {
	if c := firstCertificate(certificate); c != nil {
		return c.Subject.CommonName
	}
	return ""
}

// CertificateEnd is when the first certificate in PEM ends.
func CertificateEnd(certificate []byte) (time.Time, bool) {
	if c := firstCertificate(certificate); c != nil {
		return c.NotAfter, true
	}
	return time.Time{}, false
}

func firstCertificate(text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// Rotation is what moves a rotation of a CA on.
type Rotation struct {
	Kind     CAKind   // zero: EdgeCA
	Request  string   // AnnotationRotate
	OldUsers []string // connected edges whose certificates the old CA signed
	Now      time.Time
	Random   io.Reader
}

// Rotated is what one step of a rotation made.
type Rotated struct {
	CA      CA
	Changed bool
	// Note says what happened, or why nothing did; "" if there was nothing to do.
	Note string
	// Answered: the request is dealt with.
	Answered bool
}

// Rotate takes the next step of a rotation, if there is one to take.
func (ca CA) Rotate(r Rotation) (Rotated, error) {
	if r.Kind == (CAKind{}) {
		r.Kind = EdgeCA
	}
	switch {
	case len(ca.Next.Certificate) > 0 && (r.Request == RotateForce || !r.Now.Before(madeAt(ca.Next.Certificate).Add(NextCAWait))):
		return ca.switched(r)
	case len(ca.Old) > 0 && !r.Now.Before(madeAt(ca.Certificate).Add(NextCAWait+r.Kind.leaves)):
		return ca.withoutOld("every certificate that it signed has ended"), nil
	case r.Request == "":
		return Rotated{CA: ca}, nil
	case r.Request == RotateStart:
		return ca.started(r)
	case r.Request == RotateFinish || r.Request == RotateForce:
		return ca.finished(r), nil
	}
	return Rotated{CA: ca, Answered: true, Note: fmt.Sprintf("annotation %s is %q; use %s, %s or %s", AnnotationRotate, r.Request, RotateStart, RotateFinish, RotateForce)}, nil
}

func (ca CA) started(r Rotation) (Rotated, error) {
	if len(ca.Next.Certificate) > 0 || len(ca.Old) > 0 {
		return Rotated{CA: ca, Answered: true, Note: "a rotation of the edge CA has been started already; finish it first"}, nil
	}
	next, err := r.Kind.new(r.Now, r.Random)
	if err != nil {
		return Rotated{}, err
	}
	ca.Next = next
	return Rotated{CA: ca, Changed: true, Answered: true, Note: fmt.Sprintf(
		"step 1 of 3: edge CA %s is trusted beside %s, which signs for another %s", CertificateName(next.Certificate), ca.Name(), NextCAWait)}, nil
}

// switched has the next CA sign. The key of the old one is gone then.
func (ca CA) switched(r Rotation) (Rotated, error) {
	old, oldKey, err := parsePair(ca.Pair)
	if err != nil {
		return Rotated{}, fmt.Errorf("edge CA: %w", err)
	}
	next, nextKey, err := parsePair(ca.Next)
	if err != nil {
		return Rotated{}, fmt.Errorf("next edge CA: %w", err)
	}
	template, err := newTemplate(r.Random, next.Subject.CommonName, r.Now, old.NotAfter.Sub(r.Now))
	if err != nil {
		return Rotated{}, err
	}
	template.IsCA, template.MaxPathLenZero, template.KeyUsage = true, true, next.KeyUsage
	cross, err := sign(template, old, &nextKey.PublicKey, oldKey)
	if err != nil {
		return Rotated{}, err
	}
	ca = CA{Pair: ca.Next, Old: ca.Certificate, Cross: cross}
	return Rotated{CA: ca, Changed: true, Note: fmt.Sprintf(
		"step 2 of 3: edge CA %s signs; certificates of %s are let in until the rotation is finished", ca.Name(), CertificateName(ca.Old))}, nil
}

func (ca CA) finished(r Rotation) Rotated {
	old := CertificateName(ca.Old)
	switch {
	case len(ca.Next.Certificate) > 0:
		return Rotated{CA: ca, Note: fmt.Sprintf("edge CA %s signs soon; then the rotation is finished", CertificateName(ca.Next.Certificate))}
	case len(ca.Old) == 0:
		return Rotated{CA: ca, Answered: true, Note: "no rotation of the edge CA has been started"}
	case r.Request == RotateFinish && len(r.OldUsers) > 0:
		return Rotated{CA: ca, Note: fmt.Sprintf("step 3 of 3 waits: these edges still use certificates of edge CA %s, and renew them, or must join again: %s", old, few(r.OldUsers))}
	case r.Request == RotateForce:
		return ca.withoutOld("as was asked for; edges that have certificates of it must join again")
	}
	return ca.withoutOld("no connected edge uses it")
}

// withoutOld ends the trust in the old CA. The cross certificate stays: who knows only the
// old CA still trusts the hub by it, and so comes to hear that it is refused.
func (ca CA) withoutOld(why string) Rotated {
	note := fmt.Sprintf("step 3 of 3: edge CA %s is not trusted any more: %s", CertificateName(ca.Old), why)
	ca.Old = nil
	return Rotated{CA: ca, Changed: true, Answered: true, Note: note}
}

// madeAt is when the hub made a certificate.
func madeAt(certificate []byte) time.Time {
	if c := firstCertificate(certificate); c != nil {
		return SignedAt(c)
	}
	return time.Time{}
}

// SignedAt is when the hub signed a certificate, by its clock.
func SignedAt(c *x509.Certificate) time.Time { return c.NotBefore.Add(maxClockSkew) }

// few joins the first names of a list, and says how many more there are.
func few(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// SplitIssued divides what the hub answers to a request: the certificate and its chain,
// for tls.crt, and the CAs that edges trust, for ca.crt.
func SplitIssued(text []byte) (chain, bundle []byte, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate of the hub: %w", err)
		}
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			bundle = append(bundle, encodeCertificate(block.Bytes)...)
		} else {
			chain = append(chain, encodeCertificate(block.Bytes)...)
		}
	}
	if len(bundle) == 0 {
		return nil, nil, errors.New("the hub's answer has no CA")
	}
	return chain, bundle, nil
}

// Check returns why the CA cannot sign.
func (ca CA) Check() error {
	parsed, _, err := parsePair(ca.Pair)
	if err != nil {
		return err
	}
	if !parsed.IsCA {
		return fmt.Errorf("certificate %q is not a CA's", parsed.Subject.CommonName)
	}
	return nil
}
