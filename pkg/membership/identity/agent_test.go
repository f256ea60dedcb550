package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// hub answers as the member API does.
type hub struct {
	t       *testing.T
	ca      atomic.Pointer[registration.CA]
	members chan string // answers to who may gossip, in turn
	known   chan string // what the agent said to know
}

var west = registration.GossipIdentity{Member: "us-west", Credential: "abcdefghi1"}

func (h *hub) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
	if r.URL.Path == v1alpha1.GossipMembersPath {
		h.known <- r.Header.Get("If-None-Match")
		select {
		case text := <-h.members:
			answer.Header.Set("ETag", `"`+text[:min(len(text), 30)]+`"`)
			answer.Body = io.NopCloser(bytes.NewReader([]byte(text)))
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		return answer, nil
	}
	request, err := io.ReadAll(r.Body)
	testkit.Must(h.t, err)
	ca := h.ca.Load()
	signed, err := registration.SignGossipRequest(ca.Issuer(time.Now(), rand.Reader), west, request, time.Now().Add(time.Hour))
	testkit.Must(h.t, err)
	answer.Body = io.NopCloser(bytes.NewReader(slices.Concat(signed, ca.Bundle())))
	return answer, nil
}

func (h *hub) newCA() *registration.CA {
	made, err := registration.NextMemberCA(registration.CA{}, time.Now(), rand.Reader)
	testkit.Must(h.t, err)
	h.ca.Store(&made.CA)
	return &made.CA
}

func (h *hub) replica(ca *registration.CA) *x509.Certificate {
	pair, err := registration.NewReplicaCertificate(ca.Issuer(time.Now(), rand.Reader), "crossway-hub-0")
	testkit.Must(h.t, err)
	parsed, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	testkit.Must(h.t, err)
	return parsed.Leaf
}

// The agent gets a certificate in its name, and another one, with another key and other CAs, when the hub has a new CA. It
// lets in who may gossip: not before the hub has said so, and not after the hub has said otherwise.
func TestAgent(t *testing.T) {
	h := &hub{t: t, members: make(chan string), known: make(chan string, 100)}
	first := h.newCA()
	clock := clocktesting.NewFakeClock(time.Now())
	a := New(Config{API: h, Clock: clock, Log: logr.Discard()})
	if _, err := a.Certificate(); err == nil {
		t.Error("a certificate before the hub gave one")
	}
	testkit.Run(t, a.Start)
	trusts := func(ca *registration.CA) bool {
		_, err := h.replica(ca).Verify(x509.VerifyOptions{Roots: a.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err == nil
	}
	testkit.Eventually(t, "a certificate", func() bool { _, err := a.Certificate(); return err == nil })
	own, err := a.Certificate()
	testkit.Must(t, err)
	if id, err := registration.GossipIdentityOf(own.Leaf); err != nil || id != west || !trusts(first) {
		t.Errorf("the certificate is that of %+v (%v); the hub is trusted: %v", id, err, trusts(first))
	}

	if a.Check(own.Leaf) == nil {
		t.Error("a member is let in before the hub said who may gossip")
	}
	if err := a.Check(h.replica(first)); err != nil {
		t.Errorf("a replica of the hub: %v", err)
	}
	<-h.known
	h.members <- `[{"name":"us-west","credential":"abcdefghi1"}]`
	testkit.Eventually(t, "who may gossip is let in", func() bool { return a.Check(own.Leaf) == nil })
	testkit.Eventually(t, "the next question says what is known", func() bool {
		clock.Step(time.Millisecond)
		select {
		case known := <-h.known:
			return known != ""
		default:
			return false
		}
	})
	h.members <- `[{"name":"us-west","credential":"abcdefghi2"}]`
	testkit.Eventually(t, "a revoked credential is not let in", func() bool { return a.Check(own.Leaf) != nil })

	second := h.newCA()
	testkit.Eventually(t, "the new CA is trusted", func() bool { clock.Step(renewInterval / 4); return trusts(second) })
	if now, err := a.Certificate(); err != nil || bytes.Equal(now.Leaf.RawSubjectPublicKeyInfo, own.Leaf.RawSubjectPublicKeyInfo) {
		t.Errorf("the new certificate has the old key: %v", err)
	}
}
