package registration_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

var agent = registration.GossipIdentity{Member: "us-west", Credential: "abcdefghi1"}

// gossipCA is the CA of gossip as the hub makes it at first.
func gossipCA(t *testing.T, at time.Time) registration.CA {
	t.Helper()
	made, err := registration.NextMemberCA(registration.CA{}, at, random(9))
	testkit.Must(t, err)
	return made.CA
}

// signed is the certificate that a member's agent gets.
func signed(t *testing.T, ca registration.CA, id registration.GossipIdentity, at, credentialEnd time.Time) registration.Pair {
	t.Helper()
	key, request, err := registration.NewGossipRequest(random(5))
	testkit.Must(t, err)
	chain, err := registration.SignGossipRequest(ca.Issuer(at, random(6)), id, request, credentialEnd)
	testkit.Must(t, err)
	return registration.Pair{Certificate: chain, Key: key}
}

// A certificate for gossip names who asks, not what is asked for, and ends with the credential, a day from now at the latest.
func TestSignGossipRequest(t *testing.T) {
	ca := gossipCA(t, now)
	for _, c := range []struct {
		what          string
		end, wantsEnd time.Time
	}{
		{"of a credential for a week", now.Add(7 * 24 * time.Hour), now.Add(registration.MaxMemberLife)},
		{"of a credential for an hour", now.Add(time.Hour), now.Add(time.Hour)},
	} {
		certificate := leaf(t, signed(t, ca, agent, now, c.end))
		got, err := registration.GossipIdentityOf(certificate)
		if err != nil || got != agent || got.String() != "member/us-west" {
			t.Errorf("%s: signed for %+v, %v", c.what, got, err)
		}
		if !certificate.NotAfter.Equal(c.wantsEnd) {
			t.Errorf("%s: ends %s, not %s", c.what, certificate.NotAfter, c.wantsEnd)
		}
	}
	_, request, err := registration.NewGossipRequest(random(5))
	testkit.Must(t, err)
	for what, end := range map[string]time.Time{"that has ended": now, "whose end nobody knows": {}} {
		if _, err := registration.SignGossipRequest(ca.Issuer(now, random(6)), agent, request, end); err == nil {
			t.Errorf("a certificate of a credential %s was signed", what)
		}
	}
	for _, id := range []registration.GossipIdentity{{}, {Member: "us-west"}, {Member: "a/b", Credential: agent.Credential}, {Replica: "../hub"}} {
		if _, err := registration.SignGossipRequest(ca.Issuer(now, random(6)), id, request, now.Add(time.Hour)); err == nil {
			t.Errorf("signed for %+v", id)
		}
	}
}

// An edge's certificate is none for gossip, and the reverse, by its chain and by its name: where one of the checks were
// missing, the other would do.
func TestGossipAndEdgesAreApart(t *testing.T) {
	edges, err := registration.NewEdgeCA(now, random(1))
	testkit.Must(t, err)
	gossip := gossipCA(t, now)
	edge, err := registration.NewEdgeCertificate(registration.Issuer{CA: edges, Now: now, Random: random(2)},
		registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "a", Credential: "abcdefghi1"}, time.Hour)
	testkit.Must(t, err)
	member := signed(t, gossip, agent, now, now.Add(time.Hour))
	replica, err := registration.NewReplicaCertificate(gossip.Issuer(now, random(3)), "crossway-hub-7d4f-x2")
	testkit.Must(t, err)
	client := x509.ExtKeyUsageClientAuth
	if trusts(t, gossip.Bundle(), edge.Certificate, client, now) || trusts(t, edges.Certificate, member.Certificate, client, now) ||
		trusts(t, edges.Certificate, replica.Certificate, x509.ExtKeyUsageServerAuth, now) {
		t.Error("the CA of one trusts a certificate of the other")
	}
	if id, err := registration.GossipIdentityOf(leaf(t, edge)); err == nil {
		t.Errorf("an edge gossips as %+v", id)
	}
	for _, pair := range []registration.Pair{member, replica} {
		if id, err := registration.EdgeIdentityOf(leaf(t, pair)); err == nil {
			t.Errorf("a node of gossip is edge %+v", id)
		}
	}
	if id, err := registration.GossipIdentityOf(leaf(t, replica)); err != nil || id.String() != "hub/crossway-hub-7d4f-x2" {
		t.Errorf("the replica is %+v, %v", id, err)
	}
}

// Whoever is accepted gossips with the credential in force, and with no other.
func TestCheckGossip(t *testing.T) {
	member := func(change func(*v1alpha1.MemberCluster)) *v1alpha1.MemberCluster {
		m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}, Spec: v1alpha1.MemberClusterSpec{Accepted: true},
			Status: v1alpha1.MemberClusterStatus{Credential: &v1alpha1.MemberCredential{ID: agent.Credential}}}
		change(m)
		return m
	}
	for _, c := range []struct {
		what   string
		member *v1alpha1.MemberCluster
		want   string // "": let in
	}{
		{"accepted", member(func(*v1alpha1.MemberCluster) {}), ""},
		{"deleted", nil, "does not exist"},
		{"not accepted", member(func(m *v1alpha1.MemberCluster) { m.Spec.Accepted = false }), "is not accepted"},
		{"revoked", member(func(m *v1alpha1.MemberCluster) { m.Spec.RevokedCredentials = []string{agent.Credential} }), "is not that"},
		{"with another credential", member(func(m *v1alpha1.MemberCluster) { m.Status.Credential.ID = "abcdefghi2" }), "is not that"},
	} {
		err := registration.CheckGossip(agent, c.member)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		var all []v1alpha1.MemberCluster
		if c.member != nil {
			all = append(all, *c.member)
		}
		if may := registration.MayGossip(agent, registration.GossipMembers(all)); may != (c.want == "") {
			t.Errorf("%s: other agents let it in: %v", c.what, may)
		}
	}
}

// The CA of gossip rotates by itself, a third of its life before its end, and at no moment does a node that has the CAs of
// one step refuse another of the next. A day after the new one signs, the old one is not trusted any more. A damaged CA is
// made anew.
func TestMemberCARotates(t *testing.T) {
	ca, at := gossipCA(t, now), now
	next := func(what string) (registration.CA, bool) {
		t.Helper()
		r, err := registration.NextMemberCA(ca, at, random(byte(100+at.Hour()+at.Minute())))
		testkit.Must(t, err)
		t.Logf("%s: %s: CA %s", at, what, r.CA.Name())
		return r.CA, r.Changed
	}
	if _, changed := next("young"); changed {
		t.Error("a young CA rotates")
	}
	at = now.Add(registration.MemberCALife*2/3 + time.Hour)
	for _, step := range []struct {
		what string
		wait time.Duration
	}{{"the next is trusted", 0}, {"the next signs", registration.NextCAWait}, {"the old is not trusted any more", registration.NextCAWait + registration.MaxMemberLife}} {
		before := ca
		held := signed(t, before, agent, at, at.Add(48*time.Hour))
		at = at.Add(step.wait)
		after, changed := next(step.what)
		if !changed {
			t.Fatalf("%s: nothing changed", step.what)
		}
		ca = after
		if step.wait < time.Hour && !trusts(t, ca.Bundle(), held.Certificate, x509.ExtKeyUsageClientAuth, at) {
			t.Errorf("%s: who knows it refuses a certificate of before", step.what)
		}
		if !trusts(t, before.Bundle(), signed(t, ca, agent, at, at.Add(time.Hour)).Certificate, x509.ExtKeyUsageServerAuth, at) {
			t.Errorf("%s: who does not know it yet refuses a certificate of now", step.what)
		}
	}
	if len(ca.Old) > 0 || ca.Name() == gossipCA(t, now).Name() {
		t.Errorf("the rotation ended with CA %s beside %d bytes of the old", ca.Name(), len(ca.Old))
	}
	whole, garbage := ca, []byte("damaged")
	for what, damage := range map[string]func(){
		"key": func() { ca.Key = garbage }, "certificate": func() { ca.Certificate = garbage }, "next CA": func() { ca.Next.Certificate = garbage },
		"old CA": func() { ca.Old = garbage }, "cross certificate": func() { ca.Cross = garbage },
	} {
		ca = whole
		damage()
		if made, changed := next("damaged " + what); !changed || made.Check() != nil || bytes.Contains(made.Bundle(), garbage) {
			t.Errorf("a CA with a damaged %s stays", what)
		}
	}
}
