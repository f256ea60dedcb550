package server

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// signs has the hub sign, and notes for whom and until when.
func (f *fixture) signs() (asked *[]string) {
	ca, err := registration.NextMemberCA(registration.CA{}, time.Now(), rand.Reader)
	f.Must(err)
	asked = &[]string{}
	f.Server.config.Sign = func(id registration.GossipIdentity, request []byte, end time.Time) ([]byte, error) {
		*asked = append(*asked, fmt.Sprintf("%s %s %d", id.String(), id.Credential, end.Unix()))
		return registration.SignGossipRequest(ca.CA.Issuer(time.Now(), rand.Reader), id, request, end)
	}
	return asked
}

// expiring is a token of a member's ServiceAccount that says when it ends. The fixture takes what follows its last dot for the user.
func expiring(cluster string, end time.Time) string {
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp": %d}`, end.Unix()))
	return "header." + claims + "." + userOf(cluster)
}

// askGossip sends a request about gossip.
func (f *fixture) askGossip(method, path, token string, body []byte, headers map[string]string) (code int, header http.Header, text string) {
	f.TB.Helper()
	request, err := http.NewRequestWithContext(f.TB.Context(), method, "https://"+f.address+path, bytes.NewReader(body))
	f.Must(err)
	request.Header.Set("Authorization", "Bearer "+token)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	f.Must(err)
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	f.Must(err)
	return response.StatusCode, response.Header, string(read)
}

// A member's agent gets a certificate for gossip in its own name and of its credential, until that ends; nobody else gets
// one, and who asks too often or sends too much waits.
func TestCertificateForGossip(t *testing.T) {
	f := newFixture(t)
	asked := f.signs()
	f.member("a", "shop")
	f.pass()
	_, request, err := registration.NewGossipRequest(rand.Reader)
	f.Must(err)
	end := time.Now().Add(time.Hour)
	post := func(token string, body []byte) (int, string) {
		t.Helper()
		code, _, text := f.askGossip(http.MethodPost, v1alpha1.GossipCertificatePath, token, body, nil)
		return code, text
	}
	if code, text := post(expiring("a", end), request); code != http.StatusOK || !strings.Contains(text, "BEGIN CERTIFICATE") {
		t.Fatalf("%d %s", code, text)
	}
	_, credential, _ := registration.ParseMemberUser(userOf("a"))
	if want := fmt.Sprintf("member/a %s %d", credential, end.Unix()); len(*asked) != 1 || (*asked)[0] != want {
		t.Errorf("signed for %q, not %q", *asked, want)
	}
	for _, c := range []struct {
		what, token string
		body        []byte
		code        int
		text        string
	}{
		{"a credential whose end nobody knows", userOf("a"), request, http.StatusServiceUnavailable, "does not say when it ends"},
		{"half a request", expiring("a", end), request[:40], http.StatusServiceUnavailable, "certificate request"},
		{"too large a request", expiring("a", end), bytes.Repeat([]byte("x"), maxRequest+1), http.StatusRequestEntityTooLarge, "at most"},
		{"a cluster that is no member", expiring("b", end), request, http.StatusForbidden, "not accepted"},
	} {
		if code, text := post(c.token, c.body); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %s", c.what, code, text)
		}
	}
	if code, _, _ := f.askGossip(http.MethodGet, v1alpha1.GossipCertificatePath, expiring("a", end), nil, nil); code != http.StatusMethodNotAllowed {
		t.Errorf("GET of a certificate: %d", code)
	}
	last := 0
	for range signBurst + 1 {
		last, _ = post(expiring("a", end), request)
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("%d requests at once end with %d", signBurst+5, last)
	}
}

// Who may gossip is told, told again when it changes, and to nobody whose credential was revoked meanwhile.
func TestGossipMembers(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.pass()
	get := func(known string) (int, string, []registration.GossipMember) {
		t.Helper()
		code, header, text := f.askGossip(http.MethodGet, v1alpha1.GossipMembersPath, userOf("a"), nil, map[string]string{"If-None-Match": known})
		var all []registration.GossipMember
		if code == http.StatusOK {
			f.Must(json.Unmarshal([]byte(text), &all))
		}
		return code, header.Get("ETag"), all
	}
	code, etag, all := get("")
	if code != http.StatusOK || len(all) != 1 || all[0].Name != "a" || all[0].Credential == "" {
		t.Fatalf("%d %v", code, all)
	}
	type answer struct {
		code int
		all  []registration.GossipMember
	}
	waits := func(known string) <-chan answer {
		answers := make(chan answer, 1)
		go func() {
			code, _, all := get(known)
			answers <- answer{code, all}
		}()
		f.Eventually("the question waits", func() bool {
			f.openMu.Lock()
			defer f.openMu.Unlock()
			return f.open["a"].waits == 1
		})
		return answers
	}
	waiting := waits(etag)
	f.member("b", "shop")
	f.pass()
	if got := <-waiting; got.code != http.StatusOK || len(got.all) != 2 {
		t.Errorf("when a member came: %+v", got)
	}
	_, etag, _ = get("")
	waiting = waits(etag)
	revoked := f.memberObject("a", "shop")
	revoked.Spec.RevokedCredentials = []string{revoked.Status.Credential.ID}
	f.inbox.Add(func(p *pending) { p.clusters["a"] = revoked })
	f.pass()
	if got := <-waiting; got.code != http.StatusForbidden {
		t.Errorf("who was revoked is told: %+v", got)
	}
}
