package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What keeps a cluster from the hub is said with its reason, the figures, and what to do.
func TestWords(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	token := asked{server: "https://hub:6443", member: "us-west", what: "the join token", until: at.Add(time.Hour), now: at, atHub: at}
	ended := token
	ended.atHub = at.Add(2 * time.Hour)
	sent := func(err error) error {
		return fmt.Errorf("create: %w", &url.Error{Op: "Post", URL: "https://hub:6443/apis", Err: err})
	}
	resource := schema.GroupResource{Resource: "certificatesigningrequests"}
	for _, c := range []struct {
		asked  asked
		err    error
		reason string
		words  []string
	}{
		{token, sent(x509.UnknownAuthorityError{}), "WrongCA", []string{"https://hub:6443", "not signed by the CA", "crossway token create us-west"}},
		{token, sent(x509.CertificateInvalidError{Cert: &x509.Certificate{NotBefore: at.Add(24 * time.Hour), NotAfter: at.Add(48 * time.Hour)}, Reason: x509.Expired}),
			"HubCertificateNotValid", []string{"from 2026-01-02T12:00:00Z to 2026-01-03T12:00:00Z", "this cluster's clock says 2026-01-01T12:00:00Z"}},
		{token, sent(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "hub"}), "WrongHubName", []string{"crossway token create --hub-server"}},
		{token, apierrors.NewUnauthorized("no"), "CredentialUnknown", []string{"does not know the join token", "used, withdrawn, revoked", "crossway token create us-west"}},
		{ended, apierrors.NewUnauthorized("no"), "CredentialEnded", []string{"the join token ended at 2026-01-01T13:00:00Z", "at the hub it is 2026-01-01T14:00:00Z", "here 2026-01-01T12:00:00Z"}},
		{token, apierrors.NewForbidden(resource, "", errors.New("no")), "Forbidden", []string{"deployment crossway-hub"}},
		{token, sent(errors.New("connection refused")), "HubNotReachable", []string{"https://hub:6443", "connection refused", "network path"}},
		{token, ownError{apierrors.NewForbidden(resource, "", errors.New("no"))}, "ThisCluster", []string{"forbidden"}},
		{token, apierrors.NewInternalError(errors.New("etcd")), "HubError", []string{"etcd"}},
	} {
		got := c.asked.failed(c.err)
		if got.reason != c.reason || !got.blocks || !got.wrong {
			t.Errorf("%v: %+v, want %s", c.err, got, c.reason)
		}
		for _, w := range c.words {
			if !strings.Contains(got.text(), w) {
				t.Errorf("%s: %q, want %q", c.reason, got.text(), w)
			}
		}
	}
}

// What keeps a cluster from the hub is said once, although each try has other times and
// ports in its words.
func TestSameWords(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ask := func(now time.Time) asked {
		return asked{server: "https://hub:6443", member: "us-west", what: "this cluster's credential", until: at.Add(-time.Hour), now: now, atHub: now}
	}
	reset := func(port string) error {
		return &url.Error{Op: "Get", Err: errors.New("read tcp 10.0.0.1:" + port + "->10.0.0.2:6443: connection reset")}
	}
	expired := x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}
	for _, errs := range [][2]error{{apierrors.NewUnauthorized("no"), apierrors.NewUnauthorized("no")}, {expired, expired}, {reset("1024"), reset("1025")}} {
		first, second := ask(at).failed(errs[0]), ask(at.Add(time.Second)).failed(errs[1])
		if !first.same(second) || first.text() == second.text() {
			t.Errorf("%q, then %q", first.text(), second.text())
		}
	}
	if token := (asked{what: "the join token"}); token.refusal("no").same(token.refusal("revoked")) {
		t.Error("two refusals are the same")
	}
}
