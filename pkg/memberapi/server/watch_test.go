package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

const (
	importsPath = "/apis/multicluster.x-k8s.io/v1beta1/serviceimports"
	slicesPath  = "/apis/discovery.k8s.io/v1/endpointslices"
)

// reply is what a request got. Its body ends with the test.
type reply struct {
	*http.Response
}

// request makes one request; the token is a user.
func (f *fixture) request(ctx context.Context, token, path string) reply {
	f.TB.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.address+path, nil)
	f.Must(err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	transport := f.transport
	if transport == nil {
		transport = insecure(f.TB)
	}
	response, err := transport.RoundTrip(r)
	f.Must(err)
	f.TB.Cleanup(func() { response.Body.Close() })
	return reply{response}
}

// insecure opens connections of its own, to a server of any name.
func insecure(t testing.TB) *http.Transport {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// status is the Status that a request is answered with.
func (f *fixture) status(token, path string) metav1.Status {
	f.TB.Helper()
	answer := f.request(f.TB.Context(), token, path)
	var s metav1.Status
	f.Must(json.NewDecoder(answer.Body).Decode(&s))
	if int(s.Code) != answer.StatusCode || s.Kind != "Status" {
		f.TB.Errorf("%s: code %d, Status %+v", path, answer.StatusCode, s)
	}
	return s
}

// openedWatch is a watch that a test reads.
type openedWatch struct {
	t     testing.TB
	lines *bufio.Scanner
}

func (f *fixture) openWatch(token, path string) *openedWatch {
	f.TB.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	answer := f.request(f.TB.Context(), token, path+separator+"watch=true")
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		f.TB.Fatalf("%s: %s", answer.Status, text)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	return &openedWatch{f.TB, lines}
}

// next is the next event: its type, and the object's name or the Status' code and message. "": the stream has ended.
func (w *openedWatch) next() string {
	w.t.Helper()
	if !w.lines.Scan() {
		return ""
	}
	var e struct {
		Type   string
		Object struct {
			Code     int
			Message  string
			Metadata metav1.ObjectMeta
		}
	}
	testkit.Must(w.t, json.Unmarshal(w.lines.Bytes(), &e))
	switch {
	case e.Type == "ERROR":
		return fmt.Sprintf("ERROR %d %s", e.Object.Code, e.Object.Message)
	case e.Type == "BOOKMARK":
		return fmt.Sprintf("BOOKMARK end=%s", e.Object.Metadata.Annotations[metav1.InitialEventsAnnotationKey])
	}
	return e.Type + " " + e.Object.Metadata.Name
}

func (w *openedWatch) expect(want ...string) {
	w.t.Helper()
	for _, prefix := range want {
		if got := w.next(); !strings.HasPrefix(got, prefix) || prefix == "" && got != "" {
			w.t.Errorf("got %q, want %q", got, prefix)
		}
	}
}

func userOf(cluster string) string {
	return registration.MemberUser(fleet.ClusterName(cluster), testkit.CredentialID)
}

// A member whose acceptance ends reads nothing new: its open watch says why and ends, and new requests are refused. The
// watches of others go on.
func TestRevokedWatchEnds(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.export("shop", "web", "a")
	f.pass()
	a, b := f.openWatch(userOf("a"), importsPath), f.openWatch(userOf("b"), importsPath)
	a.expect("ADDED web")
	b.expect("ADDED web")

	f.inbox.Add(func(p *pending) { p.clusters["a"] = nil })
	f.export("shop", "secret", "b")
	f.pass()
	a.expect(`ERROR 403 MemberCluster "a" does not exist or is not accepted`, "")
	b.expect("ADDED secret")
	for _, path := range []string{importsPath, slicesPath, importsPath + "?watch=true", "/apis", importsPath + "?watch=true&resourceVersion=1"} {
		if s := f.status(userOf("a"), path); s.Code != http.StatusForbidden || !strings.Contains(s.Message, "spec.accepted") {
			t.Errorf("%s: %+v", path, s)
		}
	}
}

// A member reads with the credential that it has, of either kind, and with no other of its name. Another one ends the
// watches of the first at once; a renewal, which keeps its ID, does not.
func TestCredentialOfAWatch(t *testing.T) {
	f := newFixture(t)
	const first, second = "aaaaaaaaaa", "bbbbbbbbbb"
	kind := v1alpha1.CredentialCertificate
	credential := func(id string, end time.Time) {
		f.inbox.Add(func(p *pending) {
			m := f.memberObject("a", "shop")
			m.Status.Credential = &v1alpha1.MemberCredential{ID: id, Kind: kind, ExpirationTime: &metav1.Time{Time: end}}
			p.clusters["a"] = m
		})
	}
	credential(first, time.Unix(1, 0))
	f.export("shop", "web", "a")
	f.pass()
	user := registration.MemberUser("a", first)
	w := f.openWatch(user, importsPath)
	w.expect("ADDED web")
	credential(first, time.Unix(2, 0))
	f.export("shop", "more", "a")
	f.pass()
	w.expect("ADDED more")
	account := registration.CredentialUser("a", v1alpha1.CredentialServiceAccountToken, first)
	for _, user := range []string{registration.MemberUser("a", second), v1alpha1.MemberUserPrefix + "a", registration.MemberUser("b", first), account,
		"system:serviceaccount:crossway-members:join.a." + first} {
		if s := f.status(user, importsPath); s.Code != http.StatusForbidden {
			t.Errorf("%s: %+v", user, s)
		}
	}

	kind = v1alpha1.CredentialServiceAccountToken
	credential(second, time.Unix(3, 0))
	f.export("shop", "secret", "a")
	f.pass()
	w.expect("ERROR 403 ", "")
	if s := f.status(user, importsPath); s.Code != http.StatusForbidden {
		t.Errorf("%+v", s)
	}
	f.openWatch(registration.CredentialUser("a", kind, second), importsPath).expect("ADDED more", "ADDED secret", "ADDED web")
}

// A member that may import less is told what left, and its watch ends. A watch from an earlier version is refused, so
// that nobody misses what a namespace had before it could be seen.
func TestNamespacesOfAnOpenWatchChange(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop", "team-1")
	f.export("shop", "web", "a")
	f.export("team-1", "db", "a")
	f.pass()
	w := f.openWatch(userOf("a"), importsPath)
	w.expect("ADDED web", "ADDED db")
	before := f.state.Version()
	f.member("a", "shop", "team-2")
	f.export("team-1", "db2", "a")
	f.export("team-2", "new", "a")
	f.pass()
	w.expect("DELETED db", "ERROR 410", "")
	if s := f.status(userOf("a"), fmt.Sprintf("%s?watch=true&resourceVersion=%d", importsPath, before)); s.Reason != metav1.StatusReasonExpired {
		t.Errorf("an earlier version: %+v", s)
	}
	f.openWatch(userOf("a"), importsPath).expect("ADDED web", "ADDED new")
}

// A watch ends when its credential does.
func TestWatchEndsWithItsToken(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.export("shop", "web", "a")
	f.pass()
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, time.Now().Add(2*time.Second).Unix()))
	began := time.Now()
	w := f.openWatch("x."+claims+"."+userOf("a"), importsPath)
	w.expect("ADDED web", "")
	if took := time.Since(began); took > testkit.Timeout/2 {
		t.Errorf("it ended after %s", took)
	}
}

// Initial events end with a bookmark if the client asks for it, also where there are none.
func TestInitialEvents(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.pass()
	const initial = "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	w := f.openWatch(userOf("a"), importsPath+initial)
	w.expect("BOOKMARK end=true")
	f.export("shop", "web", "a")
	f.pass()
	w.expect("ADDED web")
	f.openWatch(userOf("a"), importsPath+initial).expect("ADDED web", "BOOKMARK end=true")
	resumed := f.openWatch(userOf("a"), fmt.Sprintf("%s?resourceVersion=%d", importsPath, f.state.Version()))
	f.withdraw("shop", "web")
	f.pass()
	resumed.expect("DELETED web")
}

func inNamespace(namespace string) string {
	return "/apis/multicluster.x-k8s.io/v1beta1/namespaces/" + namespace + "/serviceimports"
}

// Requests that the API does not serve are refused with a Status that says what it does.
func TestRefusedRequests(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.export("shop", "web", "a")
	f.pass()
	a := userOf("a")
	for _, c := range []struct {
		token, path string
		code        int
		message     string
	}{
		{"", importsPath, 401, "client certificate"},
		{"system:admin", importsPath, 403, `user "system:admin" is no member`},
		{userOf("nobody"), importsPath, 403, `MemberCluster "nobody" does not exist`},
		{a, "/api/v1/secrets", 404, "serves serviceimports and endpointslices"},
		{a, "/apis/discovery.k8s.io/v1beta1/endpointslices", 404, "serves"},
		{a, importsPath + "/web", 404, "serves"},
		{a, "/apis/multicluster.x-k8s.io/v1beta1/namespaces/shop/serviceimports/none", 404, `"none" not found`},
		{a, importsPath + "?labelSelector=a%3Db", 400, "no selectors"},
		{a, importsPath + "?fieldSelector=metadata.name%3Db", 400, "no selectors"},
		{a, importsPath + "?resourceVersion=x", 400, `resourceVersion "x"`},
		{a, importsPath + "?watch=true&resourceVersion=12345", 410, "list again"},
		{a, importsPath + "?watch=true&sendInitialEvents=true", 422, "resourceVersionMatch"},
		{a, importsPath + "?limit=5&continue=abc", 410, "all at once"},
		{a, inNamespace("bank") + "/none", 403, `may not import namespace "bank"`},
		{a, inNamespace("bank"), 403, `may not import namespace "bank"`},
		{a, inNamespace("bank") + "?watch=true", 403, `may not import namespace "bank"`},
		{a, inNamespace("kube-system"), 403, `may not import namespace "kube-system"`},
	} {
		s := f.status(c.token, c.path)
		if int(s.Code) != c.code || !strings.Contains(s.Message, c.message) {
			t.Errorf("%s: %d %s", c.path, s.Code, s.Message)
		}
		if got, want := memberapi.IsNotImported(&apierrors.StatusError{ErrStatus: s}, "bank"), strings.Contains(c.message, "bank"); got != want {
			t.Errorf("%s: not imported %t, want %t", c.path, got, want)
		}
	}
}

// A member that opens ever more watches ends its own oldest, and nobody else's.
func TestWatchesOfAMemberAreBounded(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.pass()
	other := f.openWatch(userOf("b"), importsPath)
	f.transport = insecure(t) // one connection for all
	first := f.openWatch(userOf("a"), importsPath)
	var last *openedWatch
	for range maxWatches {
		last = f.openWatch(userOf("a"), importsPath)
	}
	first.expect("")
	f.export("shop", "web", "a")
	f.pass()
	last.expect("ADDED web")
	other.expect("ADDED web")
}

// Connections of a member are bounded: the oldest makes room.
func TestConnectionsOfAMemberAreBounded(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.pass()
	other := f.openWatch(userOf("b"), importsPath)
	first := f.openWatch(userOf("a"), importsPath)
	for range maxConnections {
		f.request(t.Context(), userOf("a"), "/apis")
	}
	first.expect("")
	f.export("shop", "web", "a")
	f.pass()
	other.expect("ADDED web")
	f.openMu.Lock()
	defer f.openMu.Unlock()
	if n := f.open["a"].connections.Len(); n > maxConnections {
		t.Errorf("%d connections", n)
	}
}

// A member that makes ever more requests is told to wait; others are answered.
func TestRequestsOfAMemberAreBounded(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.pass()
	refused := 0
	for range requestBurst + 50 {
		if answer := f.request(t.Context(), userOf("a"), "/apis"); answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no request was refused")
	}
	if answer := f.request(t.Context(), userOf("b"), "/apis"); answer.StatusCode != http.StatusOK {
		t.Errorf("another member: %s", answer.Status)
	}
}

// Sockets whose clients show no credential make room for each other, and not for those of members.
func TestSocketsWithoutCredential(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.pass()
	w := f.openWatch(userOf("a"), importsPath)
	silent := func() *tls.Conn {
		conn, err := tls.Dial("tcp", f.address, &tls.Config{InsecureSkipVerify: true})
		f.Must(err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first := silent()
	for range 100 {
		silent()
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the first socket sent something")
	}
	f.export("shop", "web", "a")
	f.pass()
	w.expect("ADDED web")
	if answer := f.request(t.Context(), userOf("a"), "/apis"); answer.StatusCode != http.StatusOK {
		t.Errorf("a new connection of a member: %s", answer.Status)
	}
	guess := f.request(t.Context(), "", "/apis")
	if guess.StatusCode != http.StatusUnauthorized || !guess.Close && guess.ProtoMajor == 1 {
		t.Errorf("a request without a credential: %s, and the connection stays", guess.Status)
	}
}

// A server that drains ends the watches of members with their connections, and answers no new one.
func TestDrain(t *testing.T) {
	f := newFixture(t)
	f.member("us", "shop")
	f.export("shop", "store", "us")
	f.pass()
	w := f.openWatch(userOf("us"), importsPath)
	f.Drain(t.Context(), time.Second)
	for w.lines.Scan() {
		continue // what there was
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.address+importsPath, nil)
	f.Must(err)
	request.Header.Set("Authorization", "Bearer "+userOf("us"))
	answer, err := (&http.Client{Transport: insecure(t)}).Do(request)
	if err == nil {
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode == http.StatusOK {
			t.Error("a new connection is answered")
		}
	}
}
