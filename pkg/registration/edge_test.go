package registration_test

import (
	"crypto/x509"
	"encoding/pem"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func random(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func issuer(t *testing.T) registration.Issuer {
	t.Helper()
	ca, err := registration.NewEdgeCA(now, random(1))
	testkit.Must(t, err)
	return registration.Issuer{CA: ca, Now: now, Random: random(2)}
}

func leaf(t *testing.T, pair registration.Pair) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(pair.Certificate)
	c, err := x509.ParseCertificate(block.Bytes)
	testkit.Must(t, err)
	return c
}

func roots(t *testing.T, ca registration.Pair) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(leaf(t, ca))
	return pool
}

// An edge's certificate carries its identity, for clients only.
func TestEdgeCertificateHasTheIdentity(t *testing.T) {
	by := issuer(t)
	id := registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us-a", PoolUID: "4a1e", Credential: "abcdefghi1"}
	pair, err := registration.NewEdgeCertificate(by, id, 24*time.Hour)
	testkit.Must(t, err)
	c := leaf(t, pair)
	verify := x509.VerifyOptions{Roots: roots(t, by.CA), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := c.Verify(verify); err != nil {
		t.Errorf("a client certificate of the CA: %v", err)
	}
	verify.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if _, err := c.Verify(verify); err == nil {
		t.Error("an edge's certificate passes for the hub's")
	}
	if got, err := registration.EdgeIdentityOf(c); err != nil || got != id {
		t.Errorf("identity %v, %v; want %v", got, err, id)
	}
	if got := c.NotAfter; !got.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("ends %s", got)
	}
}

// The serving certificate is for servers only: it is no edge's, though the
// same CA signed it.
func TestServerCertificateIsNoEdge(t *testing.T) {
	by := issuer(t)
	pair, err := registration.NewServerCertificate(by, []string{"hub.example.com", "10.0.0.1"})
	testkit.Must(t, err)
	c := leaf(t, pair)
	for _, name := range []string{"hub.example.com", "10.0.0.1"} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots(t, by.CA), CurrentTime: now, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots(t, by.CA), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the hub's certificate passes for an edge's")
	}
	if _, err := registration.EdgeIdentityOf(c); err == nil {
		t.Error("the hub's certificate has an edge's identity")
	}
}

// The certificate of replicas is for both ends of a connection, is no edge's, and nobody else's is a replica's.
func TestReplicaCertificateIsNoEdge(t *testing.T) {
	by := issuer(t)
	pair, err := registration.NewHubReplicaCertificate(by)
	testkit.Must(t, err)
	c := leaf(t, pair)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots(t, by.CA), CurrentTime: now, DNSName: registration.ReplicaServerName, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	if err := registration.CheckReplica(c); err != nil {
		t.Error(err)
	}
	if id, err := registration.EdgeIdentityOf(c); err == nil {
		t.Errorf("the certificate of replicas passes for edge %v", id)
	}
	edge, err := registration.NewEdgeCertificate(by, registration.EdgeIdentity{Pool: "hub", Region: "us", Zone: "a"}, time.Hour)
	testkit.Must(t, err)
	server, err := registration.NewServerCertificate(by, []string{registration.ReplicaServerName})
	testkit.Must(t, err)
	for what, other := range map[string]registration.Pair{"an edge's": edge, "the xDS server's": server} {
		if registration.CheckReplica(leaf(t, other)) == nil {
			t.Errorf("%s certificate passes for a replica's", what)
		}
		if registration.HubReplicaCertificateFault(by, other) == "" {
			t.Errorf("%s certificate is kept for replicas", what)
		}
	}
	if fault := registration.HubReplicaCertificateFault(by, pair); fault != "" {
		t.Errorf("a new certificate: %s", fault)
	}
}

// Same time and randomness, same bytes.
func TestSigningIsDeterministic(t *testing.T) {
	sign := func() (registration.Pair, error) {
		return registration.NewEdgeCertificate(issuer(t), registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, time.Hour)
	}
	a, err := sign()
	testkit.Must(t, err)
	b, err := sign()
	testkit.Must(t, err)
	if string(a.Certificate) != string(b.Certificate) || string(a.Key) != string(b.Key) {
		t.Error("equal arguments signed different certificates")
	}
}

func TestEdgeCertificateEndsWithItsCA(t *testing.T) {
	by := issuer(t)
	by.Now = now.Add(registration.EdgeCALife - time.Hour)
	pair, err := registration.NewEdgeCertificate(by, registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, 24*time.Hour)
	testkit.Must(t, err)
	if got, want := leaf(t, pair).NotAfter, leaf(t, by.CA).NotAfter; !got.Equal(want) {
		t.Errorf("ends %s, its CA %s", got, want)
	}
	by.Now = now.Add(registration.EdgeCALife)
	if _, err := registration.NewEdgeCertificate(by, registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, time.Hour); err == nil {
		t.Error("a CA that has ended signed")
	}
}

func TestParseEdgeIdentity(t *testing.T) {
	long := strings.Repeat("z", 63)
	for uri, want := range map[string]registration.EdgeIdentity{
		"spiffe://crossway/edge/us/us/us-a":          {Pool: "us", Region: "us", Zone: "us-a"},
		"spiffe://crossway/edge/p1/eu/" + long:       {Pool: "p1", Region: "eu", Zone: long},
		"spiffe://crossway/edge/a/b/c":               {Pool: "a", Region: "b", Zone: "c"},
		"spiffe://crossway/edge/us/us":               {},
		"spiffe://crossway/edge/us/us/":              {},
		"spiffe://crossway/edge/us/us/a/b":           {},
		"spiffe://crossway/edge/us//a":               {},
		"spiffe://crossway/member/us/us/a":           {},
		"spiffe://elsewhere/edge/us/us/a":            {},
		"https://crossway/edge/us/us/a":              {},
		"spiffe://crossway:1/edge/us/us/a":           {},
		"spiffe://crossway/edge/us/us/a?b":           {},
		"spiffe://crossway/edge/us/us/a#b":           {},
		"spiffe://crossway/edge/us/us/%61":           {},
		"spiffe://crossway/edge/US/us/a":             {},
		"spiffe://crossway/edge/us/us/-a":            {},
		"spiffe://crossway/edge/us/us/" + "z" + long: {},
		"": {},
	} {
		got, err := registration.ParseEdgeIdentity(uri)
		if got != want || (err == nil) != (want != registration.EdgeIdentity{}) {
			t.Errorf("%q: %v, %v", uri, got, err)
		}
	}
}

func FuzzParseEdgeIdentity(f *testing.F) {
	f.Add("spiffe://crossway/edge/us/us/us-a")
	f.Fuzz(func(t *testing.T, uri string) {
		if id, err := registration.ParseEdgeIdentity(uri); err == nil && id.String() != uri {
			t.Errorf("%q became %q", uri, id)
		}
	})
}

// An edge is let in by its pool's name, region and UID, and until its credential is revoked. Each refusal says what
// to do.
func TestCheckEdge(t *testing.T) {
	pool := func(name, region, uid string, revoked ...string) v1alpha1.EdgePool {
		return v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)},
			Spec: v1alpha1.EdgePoolSpec{Region: region, RevokedCredentials: revoked}}
	}
	pools := []v1alpha1.EdgePool{pool("us", "us", "uid-1", "revoked001"), pool("eu-blue", "eu", "uid-2")}
	restored := pool("us", "us", "uid-3")
	restored.Annotations = map[string]string{registration.AnnotationRestoredFrom: "uid-1"}
	edge := func(pool, region, uid, credential string) registration.EdgeIdentity {
		return registration.EdgeIdentity{Pool: pool, Region: region, Zone: "a", PoolUID: uid, Credential: credential}
	}
	const again = "; join again with a new token: crossway token create --edge us --zone a"
	for _, c := range []struct {
		id    registration.EdgeIdentity
		pools []v1alpha1.EdgePool
		want  string
	}{
		{edge("us", "us", "uid-1", "abcdefghi1"), pools, ""},
		{edge("eu-blue", "eu", "uid-2", "abcdefghi1"), pools, ""},
		{edge("us", "eu", "uid-1", "abcdefghi1"), pools, `EdgePool "us" is in region "us", not "eu"; sign a certificate for region "us", or name a pool of region "eu"`},
		{edge("eu", "eu", "uid-1", "abcdefghi1"), pools, `EdgePool "eu" does not exist; create it with region "eu", or name one that exists (eu-blue, us)`},
		{edge("us", "us", "uid-1", "abcdefghi1"), nil, `EdgePool "us" does not exist; create it with region "us", or name one that exists (there is none)`},
		{edge("us", "us", "uid-1", "revoked001"), pools, `credential revoked001 is revoked (spec.revokedCredentials of EdgePool "us")` + again},
		{edge("us", "us", "uid-1", ""), pools, "the certificate has no ID of a credential, so that nobody could revoke it" + again},
		{edge("us", "us", "uid-2", "abcdefghi1"), pools, `the certificate is of an earlier EdgePool "us" (UID "uid-2", not "uid-1")` + again +
			"; if the pool was restored from a backup, annotate it with crossway.dev/restored-from=uid-2"},
		{edge("us", "us", "", "abcdefghi1"), pools, `the certificate is of an earlier EdgePool "us" (UID "", not "uid-1")` + again +
			"; if the pool was restored from a backup, annotate it with crossway.dev/restored-from="},
		{edge("us", "us", "uid-1", "abcdefghi1"), []v1alpha1.EdgePool{restored}, ""},
	} {
		got := ""
		if err := registration.CheckEdge(c.id, c.pools); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.id, got, c.want)
		}
	}
}

func TestServerCertificateFault(t *testing.T) {
	by := issuer(t)
	names := []string{"hub.example.com"}
	pair, err := registration.NewServerCertificate(by, names)
	testkit.Must(t, err)
	other, err := registration.NewEdgeCA(now, random(9))
	testkit.Must(t, err)
	at := func(d time.Duration) registration.Issuer { by.Now = now.Add(d); return by }
	for _, c := range []struct {
		what  string
		by    registration.Issuer
		pair  registration.Pair
		names []string
		want  string
	}{
		{"new", at(0), pair, names, ""},
		{"two thirds of its life gone", at(registration.ServerLife * 3 / 4), pair, names, "ends 2027-01-01T00:00:00Z"},
		{"another name", at(0), pair, []string{"hub.example.com", "10.0.0.1"}, "does not name 10.0.0.1"},
		{"another CA", registration.Issuer{CA: other, Now: now}, pair, names, "not signed by the edge CA"},
		{"none", at(0), registration.Pair{}, names, "tls.crt or tls.key is empty"},
	} {
		if got := registration.ServerCertificateFault(c.by, c.pair, c.names); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
