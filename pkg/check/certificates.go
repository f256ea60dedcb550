package check

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/pkg/registration"
)

func certificates(f Facts) []Finding {
	out := []Finding{certificate(f, "edge CA", registration.EdgeCASecret,
		"restore it from a backup: without it no certificate of an edge can be signed or renewed"),
		certificate(f, "xDS serving certificate", registration.XDSSecret, hubMakesIt),
		certificate(f, "certificate of the hub's replicas", registration.ReplicaSecret, hubMakesIt),
		certificate(f, "CA of gossip", registration.MemberCASecret, hubMakesIt)}
	for _, c := range []struct{ secret, refused string }{
		{registration.XDSSecret, "edges refuse the hub"}, {registration.ReplicaSecret, "replicas of the hub refuse each other"},
	} {
		secret := f.Secrets[c.secret]
		if secret == nil {
			continue
		}
		if err := signedBy(secret, secret.Data[registration.CAKey], x509.ExtKeyUsageServerAuth, f.Now); err != nil {
			out = append(out, wrong("Secret "+c.secret, c.refused+"; see the hub's logs, and docs/install.md, \"When the edge CA is lost\"", "%v", err))
		}
	}
	return out
}

// hubMakesIt is what to do about a Secret that the hub makes by itself.
const hubMakesIt = "the leading replica of the hub makes it within seconds: see its logs"

// certificate is the finding of the certificate in one Secret: it is there, and when it ends.
func certificate(f Facts, title, name, ifMissing string) Finding {
	what := title + " (Secret " + name + ")"
	if reason := f.Unread[name]; reason != "" {
		return unread(what, reason)
	}
	secret := f.Secrets[name]
	if secret == nil {
		return wrong(what, ifMissing, "does not exist")
	}
	c, err := leaf(secret)
	if err != nil {
		return wrong(what, ifMissing, "%v", err)
	}
	if _, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return wrong(what, ifMissing, "%v", err)
	}
	return end(what, c.NotAfter, f.Now, c.NotAfter.Sub(c.NotBefore))
}

// end is the finding of what ends at a time and lived for a life. What lives long
// is worth a word 30 days ahead, what lives shorter in its last quarter, as it is
// renewed after two thirds.
func end(what string, at, now time.Time, life time.Duration) Finding {
	left := at.Sub(now)
	text := at.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return wrong(what, "renew it; until then its holder is refused", "ended %s", text)
	case registration.EndsSoon(at, now, life):
		return warning(what, "renew it, and find out why that has not happened by itself", "ends %s, in %s", text, days(left))
	}
	return ok(what, "ends %s, in %s", text, days(left))
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func leaf(secret *corev1.Secret) (*x509.Certificate, error) {
	block, _ := pem.Decode(secret.Data[corev1.TLSCertKey])
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM certificate", corev1.TLSCertKey)
	}
	return x509.ParseCertificate(block.Bytes)
}

// signedBy returns why a Secret's certificate is not of a CA in a bundle.
func signedBy(secret *corev1.Secret, bundle []byte, use x509.ExtKeyUsage, now time.Time) error {
	c, err := leaf(secret)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return fmt.Errorf("%s holds no CA", registration.CAKey)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: now})
	return err
}
