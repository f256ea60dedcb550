package registration_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

func rotate(t *testing.T, ca registration.CA, request string, at time.Time, users ...string) registration.Rotated {
	t.Helper()
	r, err := ca.Rotate(registration.Rotation{Request: request, OldUsers: users, Now: at, Random: random(byte(at.Second()) + 77)})
	testkit.Must(t, err)
	return r
}

// trusts says whether who has these CAs takes a certificate, with what came beside it.
func trusts(t *testing.T, bundle, chain []byte, usage x509.ExtKeyUsage, at time.Time) bool {
	t.Helper()
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	block, rest := pem.Decode(chain)
	between.AppendCertsFromPEM(rest)
	c, err := x509.ParseCertificate(block.Bytes)
	testkit.Must(t, err)
	_, err = c.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err == nil
}

// At each step of a rotation, edges and hub trust each other, whichever step each of them has seen last: an edge that was
// away since before the rotation, too, until it is finished.
func TestRotationShutsNobodyOut(t *testing.T) {
	first, err := registration.NewEdgeCA(now, random(1))
	testkit.Must(t, err)
	states := []registration.CA{{Pair: first}}
	at := now
	for _, request := range []string{registration.RotateStart, "", ""} {
		at = at.Add(registration.NextCAWait)
		states = append(states, rotate(t, states[len(states)-1], request, at).CA)
	}
	for i, hub := range states {
		server, err := registration.NewServerCertificate(hub.Issuer(at, random(byte(i))), []string{"hub"})
		testkit.Must(t, err)
		for j, edge := range states {
			pair, err := registration.NewEdgeCertificate(edge.Issuer(at, random(byte(10+j))), registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, time.Hour)
			testkit.Must(t, err)
			if !trusts(t, edge.Bundle(), server.Certificate, x509.ExtKeyUsageServerAuth, at) {
				t.Errorf("an edge of step %d does not trust a hub of step %d", j, i)
			}
			if !trusts(t, hub.Bundle(), pair.Certificate, x509.ExtKeyUsageClientAuth, at) {
				t.Errorf("a hub of step %d does not trust an edge of step %d", i, j)
			}
		}
	}
	last := states[len(states)-1]
	if last.Name() == states[0].Name() || bytes.Contains(last.Key, states[0].Key) {
		t.Error("the rotation ended with the same CA")
	}
	done := rotate(t, last, registration.RotateFinish, at).CA
	old, err := registration.NewEdgeCertificate(states[0].Issuer(at, random(3)), registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a"}, time.Hour)
	testkit.Must(t, err)
	if trusts(t, done.Bundle(), old.Certificate, x509.ExtKeyUsageClientAuth, at) {
		t.Error("a certificate of the old CA is let in after the rotation")
	}
	server, err := registration.NewServerCertificate(done.Issuer(at, random(4)), []string{"hub"})
	testkit.Must(t, err)
	if !trusts(t, states[0].Bundle(), server.Certificate, x509.ExtKeyUsageServerAuth, at) {
		t.Error("an edge that was away does not trust the hub, and so is not told that it is refused")
	}
}

// What a request does depends on where the rotation is, and is said.
func TestRotationRequests(t *testing.T) {
	pair, err := registration.NewEdgeCA(now, random(1))
	testkit.Must(t, err)
	idle := registration.CA{Pair: pair}
	announced := rotate(t, idle, registration.RotateStart, now).CA
	later := now.Add(registration.NextCAWait)
	switched := rotate(t, announced, "", later).CA
	for _, c := range []struct {
		what              string
		ca                registration.CA
		request           string
		at                time.Time
		users             []string
		changed, answered bool
		note              string
	}{
		{"nothing asked", idle, "", now, nil, false, false, ""},
		{"started", idle, "start", now, nil, true, true, "step 1 of 3"},
		{"started twice", announced, "start", now, nil, false, true, "has been started already"},
		{"not yet known everywhere", announced, "", now.Add(registration.NextCAWait - time.Second), nil, false, false, ""},
		{"known everywhere", announced, "", later, nil, true, false, "step 2 of 3"},
		{"finished too soon", announced, "finish", now, nil, false, false, "signs soon"},
		{"finished while used", switched, "finish", later, []string{"envoy-0 of us"}, false, false, "must join again: envoy-0 of us"},
		{"finished", switched, "finish", later, nil, true, true, "step 3 of 3: edge CA " + idle.Name()},
		{"forced", switched, "force", later, []string{"envoy-0 of us"}, true, true, "must join again"},
		{"nothing to finish", idle, "finish", now, nil, false, true, "no rotation"},
		{"all old certificates have ended", switched, "", later.Add(registration.MaxEdgeLife), nil, true, true, "has ended"},
		{"a word that is none", idle, "begin", now, nil, false, true, `is "begin"; use start, finish or force`},
	} {
		r := rotate(t, c.ca, c.request, c.at, c.users...)
		if r.Changed != c.changed || r.Answered != c.answered || !strings.Contains(r.Note, c.note) || (c.note == "") != (r.Note == "") {
			t.Errorf("%s: changed %v, answered %v, %q", c.what, r.Changed, r.Answered, r.Note)
		}
	}
}

// The hub signs for the identity that it knows, whatever a request says; it takes the key only, and only one that Envoy
// can use.
func TestSignEdgeRequest(t *testing.T) {
	by := issuer(t)
	id := registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us-a", PoolUID: "4a1e", Credential: "abcdefghi1"}
	key, request, err := registration.NewEdgeRequest(random(5))
	testkit.Must(t, err)
	signed, err := registration.SignEdgeRequest(by, id, request, time.Hour)
	testkit.Must(t, err)
	chain, bundle, err := registration.SplitIssued(append(signed, by.CA.Certificate...))
	testkit.Must(t, err)
	if !bytes.Equal(chain, signed) || !bytes.Equal(bundle, by.CA.Certificate) {
		t.Error("the answer was not divided into what Envoy presents and what it trusts")
	}
	c := leaf(t, registration.Pair{Certificate: chain, Key: key})
	if got, err := registration.EdgeIdentityOf(c); err != nil || got != id {
		t.Errorf("signed for %+v, %v", got, err)
	}
	if _, err := registration.SignEdgeRequest(by, id, request[:len(request)/2], time.Hour); err == nil {
		t.Error("half a request was signed")
	}
	if _, err := registration.SignEdgeRequest(by, id, request, registration.MaxEdgeLife+1); err == nil {
		t.Error("signed for longer than may be")
	}
}
