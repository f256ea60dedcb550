package envoy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

func TestRulesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, blueLoad := serve("blue", backend(t, "blue"))
	green, greenLoad := serve("green", backend(t, "green"))
	gone, goneLoad := serve("gone", netip.MustParseAddrPort("127.0.0.1:1"))
	goneLoad.Localities, goneLoad.Drop = nil, lbsync.Whole
	origin := func(n int) model.Origin {
		return model.Origin{Route: fleet.ObjectName{Namespace: "site", Name: "home"}, Rule: n}
	}
	path := func(p string) *model.PathChange { return &model.PathChange{Full: &p} }
	swap := func(p string) *model.PathChange { return &model.PathChange{Prefix: &p} }
	rules := []model.Rule{
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathExact, Value: "/exact"}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: "/re/(foo|bar|baz)/[a-z0-9-]{1,63}"}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/m"}, Method: "POST"}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/h"}, Headers: []model.ValueMatch{{Name: "env", Value: "canary"}}}, Forward: to("green")},
		{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/q"}, Query: []model.ValueMatch{{Name: "a", Value: "b.*", Regex: true}}}, Forward: to("green")},
		{Match: prefix("/full"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: path(`/one\1`), Hostname: "other.example"}},
		{Match: prefix("/p"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/one")}},
		{Match: prefix("/root"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/")}},
		{Match: prefix("/ts/"), Forward: to("blue"), Rewrite: &model.Rewrite{Path: swap("/two/")}},
		{Match: prefix("/headers"), Forward: to("blue"),
			Request:  model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: "100% %REQ(host)%"}}, Add: []model.Header{{Name: "x-add", Value: "b"}}, Remove: []string{"x-remove"}},
			Response: model.HeaderChanges{Remove: []string{"x-from-backend"}}},
		{Match: prefix("/r1"), Redirect: &model.Redirect{Scheme: "https", StatusCode: 301}},
		{Match: prefix("/r2"), Redirect: &model.Redirect{Hostname: "else.example", Path: swap("/new"), StatusCode: 302}},
		{Match: prefix("/r3"), Redirect: &model.Redirect{Hostname: "else.example", Scheme: "https", Path: path("/all"), StatusCode: 308}},
		{Match: prefix("/r4"), Redirect: &model.Redirect{Port: 8443, StatusCode: 303}},
		{Match: prefix("/teapot"), Respond: &model.Respond{StatusCode: 418, Body: "short"}},
		{Match: prefix("/invalid"), Forward: &model.Forward{Targets: []model.Target{{Weight: 1}}}},
		{Match: prefix("/part"), Forward: &model.Forward{Targets: []model.Target{{Weight: 1}, {Assignment: "blue", Weight: 0}, {Assignment: "green", Weight: 0}}}},
		{Match: prefix("/mostly"), Forward: &model.Forward{Targets: []model.Target{{Weight: 1 << 30}, {Assignment: "blue", Weight: 1}}}},
		{Match: prefix("/gone"), Forward: to("gone")},
		{Match: prefix("/own"), Request: model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: "rule"}}, Add: []model.Header{{Name: "x-add", Value: "rule"}, {Name: "x-scratch", Value: "rule"}}, Remove: []string{"x-remove"}}, Forward: &model.Forward{Targets: []model.Target{{Assignment: "blue", Weight: 1, Request: model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: "mine"}}, Add: []model.Header{{Name: "x-add", Value: "mine"}}, Remove: []string{"x-scratch"}}}}}},
		{Match: prefix("/"), Forward: to("blue"), Mirrors: []model.Mirror{{Assignment: "green", Numerator: 1, Denominator: 2}, {Numerator: 1, Denominator: 1}}, Timeout: ptr(3 * time.Second), BackendTimeout: ptr(time.Second)},
	}
	for i := range rules {
		rules[i].Origin = origin(i)
	}
	port := freePort(t)
	l := httpListener(port,
		model.VirtualHost{Hostname: "*.wild.example", Rules: []model.Rule{{Match: prefix("/"), Forward: to("green")}}},
		model.VirtualHost{Hostname: "a.wild.example"},
		model.VirtualHost{Hostname: "a.example", Rules: rules})
	l.Chains[0].Misdirected = []string{"b.example", "a.example"}
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{blue, gone, green}}, blueLoad, goneLoad, greenLoad)

	for _, c := range []struct{ method, host, path, header, want string }{
		{"GET", "a.example", "/", "", "200 blue GET / host=a.example"},
		{"POST", "a.example", "/x", "", "200 blue POST /x host=a.example"},
		{"GET", "A.Example:" + fmt.Sprint(port), "/", "", "200 blue GET / host=A.Example:" + fmt.Sprint(port)},
		{"GET", "a.example.", "/", "", "200 blue GET / host=a.example"},
		{"GET", "b.example", "/", "", "421 "},
		{"GET", "c.example", "/", "", "404 "},
		{"GET", "x.y.wild.example", "/", "", "200 green GET / host=x.y.wild.example"},
		{"GET", "a.wild.example", "/", "", "404 "},
		{"GET", "a.example", "/exact", "", "200 green GET /exact host=a.example"},
		{"GET", "a.example", "/exact/", "", "200 blue GET /exact/ host=a.example"},
		{"GET", "a.example", "/re/foo/a-b", "", "200 green GET /re/foo/a-b host=a.example"},
		{"GET", "a.example", "/re/foo/a-b/c", "", "200 blue GET /re/foo/a-b/c host=a.example"},
		{"GET", "a.example", "/m", "", "200 blue GET /m host=a.example"},
		{"POST", "a.example", "/m", "", "200 green POST /m host=a.example"},
		{"GET", "a.example", "/h", "env: canary", "200 green GET /h host=a.example"},
		{"GET", "a.example", "/h", "env: other", "200 blue GET /h host=a.example"},
		{"GET", "a.example", "/q?a=bc", "", "200 green GET /q?a=bc host=a.example"},
		{"GET", "a.example", "/q?a=cb", "", "200 blue GET /q?a=cb host=a.example"},
		{"GET", "a.example", "/full/x?q=1", "", `200 blue GET /one%5C1?q=1 host=other.example`},
		{"GET", "a.example", "/p", "", "200 blue GET /one host=a.example"},
		{"GET", "a.example", "/p/", "", "200 blue GET /one/ host=a.example"},
		{"GET", "a.example", "/p/x?q=1", "", "200 blue GET /one/x?q=1 host=a.example"},
		{"GET", "a.example", "/pxyz", "", "200 blue GET /pxyz host=a.example"},
		{"GET", "a.example", "/root/x", "", "200 blue GET /x host=a.example"},
		{"GET", "a.example", "/root", "", "200 blue GET / host=a.example"},
		{"GET", "a.example", "/ts/a", "", "200 blue GET /two/a host=a.example"},
		{"GET", "a.example", "//p//x", "", "200 blue GET /one/x host=a.example"},
		{"GET", "a.example", "/headers", "x-add: a", "200 blue GET /headers host=a.example x-set=100% %REQ(host)% x-add=a+b"},
		{"GET", "a.example", "/headers", "x-remove: a", "200 blue GET /headers host=a.example x-set=100% %REQ(host)% x-add=b"},
		{"GET", "a.example", "/r1/x?q=1", "", "301 https://a.example/r1/x?q=1"},
		{"GET", "a.example:99", "/r1/x", "", "301 https://a.example:443/r1/x"},
		{"GET", "a.example:99", "/r2/x", "", fmt.Sprintf("302 http://else.example:%d/new/x", port)},
		{"GET", "a.example:99", "/r3/x", "", "308 https://else.example/all"},
		{"GET", "a.example:99", "/r4/x", "", "303 http://a.example:8443/r4/x"},
		{"GET", "a.example", "/teapot", "", "418 short"},
		{"GET", "a.example", "/invalid", "", "500 "},
		{"GET", "a.example", "/part", "", "500 "},
		{"GET", "a.example", "/mostly", "", "500 "},
		{"GET", "a.example", "/gone", "", "503 "},
		{"GET", "a.example", "/own", "x-set: theirs\r\nx-remove: gone", "200 blue GET /own host=a.example x-set=mine x-add=rule+mine"},
		{"GET", "a.example", "/x%2fy", "", "307 "},
	} {
		got := ask(t, port, c.method, c.host, c.path, c.header)
		if c.want != got && !(strings.HasSuffix(c.want, " ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s %s%s [%s]\n got %s\nwant %s", c.method, c.host, c.path, c.header, got, c.want)
		}
	}
	for _, words := range [][]string{
		{`"path":"/exact"`, `"route":"site/home/0/0"`, `"assignment":"green"`, `"member":"us-west/shop/green"`, `"reason":"via_upstream"`},
		{`"path":"/gone"`, `"route":"site/home/18/0"`, `"assignment":"gone"`, `"flags":"UDO"`, `"reason":"unconditional_drop_overload"`},
	} {
		e.wait(fmt.Sprint("access log ", words), func() bool {
			for line := range strings.Lines(e.log()) {
				if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
					return true
				}
			}
			return false
		})
	}
}

func TestTLSOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, load := serve("blue", backend(t, "blue"))
	a, b := certificate(t, "a.example"), certificate(t, "b.example")
	host := func(name string) []model.VirtualHost {
		return []model.VirtualHost{{Hostname: name, Rules: []model.Rule{{Match: prefix("/"), Forward: to("blue")}}}}
	}
	port := freePort(t)
	l := httpListener(port)
	l.Protocol = model.HTTPS
	l.Chains = []model.Chain{
		{Name: "a", ServerName: "a.example", Secrets: []string{a.Name}, Hosts: host("a.example"), Misdirected: []string{"*"}},
		{Name: "any", Secrets: []string{b.Name}, Hosts: host("b.example"), Misdirected: []string{"a.example"}},
		{Name: "broken", ServerName: "broken.example", Reject: true},
		{Name: "bare", ServerName: "bare.example", Hosts: host("bare.example")},
	}
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{blue}, Secrets: []model.Secret{a, b}}, load)
	for _, c := range []struct{ sni, host, want string }{
		{"a.example", "a.example", "a.example: 200"},
		{"a.example", "b.example", "a.example: 421"},
		{"other.example", "b.example", "b.example: 200"},
		{"other.example", "a.example", "b.example: 421"},
		{"other.example", "c.example", "b.example: 404"},
		{"broken.example", "b.example", "closed"},
		{"bare.example", "bare.example", "closed"},
	} {
		for _, version := range []string{"http/1.1", "h2"} {
			if got := askTLS(port, c.sni, c.host, version); got != c.want {
				t.Errorf("%s to SNI %s, host %s: %s, want %s", version, c.sni, c.host, got, c.want)
			}
		}
	}
}

// Many hosts: a RouteConfiguration each, found by name whatever its spelling.
func TestScopedRoutesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, load := serve("blue", backend(t, "blue"))
	green, greenLoad := serve("green", backend(t, "green"))
	var hosts []model.VirtualHost
	for k := range 60 {
		hosts = append(hosts, model.VirtualHost{Hostname: fmt.Sprintf("h%d.example", k), Rules: []model.Rule{{Match: prefix("/"), Forward: to("blue")}}})
	}
	hosts = append(hosts, model.VirtualHost{Hostname: "*.example"})
	port, other := freePort(t), freePort(t)
	l := httpListener(port, hosts...)
	l.Chains[0].Misdirected = []string{"elsewhere.example"}
	second := httpListener(other, slices.Clone(hosts)...)
	for k := range second.Chains[0].Hosts {
		second.Chains[0].Hosts[k].Rules = []model.Rule{{Match: prefix("/"), Forward: to("green")}}
	}
	second.Chains[0].Hosts = second.Chains[0].Hosts[:60]
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l, second}, Assignments: []model.Assignment{blue, green}}, load, greenLoad)
	for _, c := range []struct {
		port               uint16
		host, header, want string
	}{
		{port, "h7.example", "", "200 blue GET / host=h7.example"},
		{port, "H7.Example:99", "", "200 blue GET / host=H7.Example:99"},
		{port, "h7.example.", "", "200 blue GET / host=h7.example"},
		{port, "h7.example.:80", "", "200 blue GET / host=h7.example:80"},
		{port, "h99.example", "", "404 "},
		{port, "h99.example", "x-crossway-scope: infra/shared/" + fmt.Sprint(port) + "/h7.example", "404 "},
		{port, "h7.example", "x-crossway-scope: rubbish", "200 blue GET / host=h7.example"},
		{port, "elsewhere.example:1", "", "421 "},
		{port, "[::1]:80", "", "404 "},
		{other, "h7.example", "", "200 green GET / host=h7.example"},
	} {
		if got := ask(t, c.port, "GET", c.host, "/", c.header); got != c.want {
			t.Errorf("%s: %s, want %s", c.host, got, c.want)
		}
	}
}

// locality is one member's part of import store, answered at one address.
func locality(cluster string, weight uint32, address netip.AddrPort) lbsync.Locality {
	return lbsync.Locality{Backend: importNamed("store"), Cluster: fleet.ClusterName(cluster), Place: fleet.Place{Region: cluster},
		Weight: weight, Endpoints: []netip.AddrPort{address}}
}

// counted sends n requests one after the other and counts the answers by their first words.
func counted(t *testing.T, port uint16, method string, n int) map[string]int {
	answers := map[string]int{}
	for range n {
		words := strings.Fields(ask(t, port, method, "a.example", "/", ""))
		answers[strings.Join(words[:min(2, len(words))], " ")]++
	}
	return answers
}

// Shares are exact, a dead member costs nothing whatever the method (its connections are refused, so nothing was sent),
// a refuge takes over when all that have a share are dead, and a backend without endpoints keeps its part as 503.
func TestSharesAndFailureOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	west, east, dead := backend(t, "west"), backend(t, "east"), netip.MustParseAddrPort("127.0.0.1:1")
	port := freePort(t)
	p := lbsync.Program{
		Listeners:   []lbsync.Listener{httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})},
		Assignments: []model.Assignment{{Key: "store"}},
	}
	for _, c := range []struct {
		why        string
		localities []lbsync.Locality
		drop       uint32
		method     string
		want       map[string]int
	}{
		{"two thirds and one third, exactly", []lbsync.Locality{locality("a", 333_333, east), locality("b", 666_667, west)}, 0, "GET",
			map[string]int{"200 west": 200, "200 east": 100}},
		{"a refuge beside all of the shares gets nothing", []lbsync.Locality{locality("a", 1, east), locality("b", lbsync.Whole, west)}, 0, "GET",
			map[string]int{"200 west": 300}},
		{"half is dead", []lbsync.Locality{locality("a", 500_000, dead), locality("b", 500_000, west)}, 0, "POST",
			map[string]int{"200 west": 300}},
		{"all that has a share is dead", []lbsync.Locality{locality("a", 1, east), locality("b", lbsync.Whole, dead)}, 0, "GET",
			map[string]int{"200 east": 300}},
		{"no backend is left", nil, lbsync.Whole, "GET", map[string]int{"503 unconditional": 300}},
	} {
		e.apply(p, lbsync.LoadAssignment{Key: "store", Localities: c.localities, Drop: c.drop})
		got := counted(t, port, c.method, 300)
		for answer, n := range c.want {
			if d := got[answer] - n; d < -2 || d > 2 {
				t.Errorf("%s: %v, want %v", c.why, got, c.want)
			}
		}
	}
}

// A timeout is an answer of 504 to whoever it is for, and tells nothing of the endpoint: nobody else loses it. With a
// limit on each try, what may be repeated is asked of another endpoint.
func TestTimeoutsOnARealEnvoy(t *testing.T) {
	for _, protocol := range []model.BackendProtocol{model.HTTP1, model.H2C} {
		t.Run(string(protocol), func(t *testing.T) { testTimeouts(t, protocol) })
	}
}

func testTimeouts(t *testing.T, protocol model.BackendProtocol) {
	e := startEdge(t)
	var asked atomic.Int32
	sleepy := func(always bool) netip.AddrPort {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1); r.URL.Path != "/quick" && (always || r.URL.Path == "/slow") {
				select {
				case <-time.After(3 * time.Second):
				case <-r.Context().Done():
				}
			}
			fmt.Fprint(w, "awake")
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(protocol == model.HTTP1)
		s.Config.Protocols.SetUnencryptedHTTP2(protocol == model.H2C)
		s.Start()
		t.Cleanup(s.Close)
		return netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	bad, good := sleepy(true), sleepy(false)
	a, load := serve("plain", bad)
	load.Localities[0].Endpoints = []netip.AddrPort{bad, good}
	timed, timedLoad := a, load
	timed.Key, timedLoad.Key, timed.Timeout = "timed", "timed", 400*time.Millisecond
	a.Protocol, timed.Protocol = protocol, protocol
	port := freePort(t)
	rule := func(host string, to *model.Forward, whole, each *time.Duration) model.VirtualHost {
		return model.VirtualHost{Hostname: host, Rules: []model.Rule{{Match: prefix("/"), Forward: to, Timeout: whole, BackendTimeout: each}}}
	}
	e.apply(lbsync.Program{Assignments: []model.Assignment{a, timed}, Listeners: []lbsync.Listener{httpListener(port,
		rule("whole.example", to("plain"), ptr(400*time.Millisecond), nil), rule("each.example", to("timed"), nil, ptr(400*time.Millisecond)),
		rule("both.example", to("timed"), ptr(600*time.Millisecond), ptr(400*time.Millisecond)))}}, load, timedLoad)
	for _, c := range []struct {
		method, host, path, want string
		tries                    []int32
	}{
		{"GET", "whole.example", "/slow", "504 ", []int32{1}},
		{"POST", "whole.example", "/slow", "504 ", []int32{1}},
		{"GET", "each.example", "/slow", "504 ", []int32{3}},  // everybody is slow: the first try and two more
		{"POST", "each.example", "/slow", "504 ", []int32{1}}, // may have been done
		{"GET", "both.example", "/slow", "504 ", []int32{2}},  // 600 ms in all
		{"GET", "each.example", "/", "200 awake", []int32{1, 2}},
		{"GET", "each.example", "/", "200 awake", []int32{1, 2}},
	} {
		asked.Store(0)
		got := ask(t, port, c.method, c.host, c.path, "")
		if !strings.HasPrefix(got, c.want) || !slices.Contains(c.tries, asked.Load()) {
			t.Errorf("%s %s%s: %s after %d tries, want %s after %d", c.method, c.host, c.path, got, asked.Load(), c.want, c.tries)
		}
	}
	for range 10 {
		for _, host := range []string{"whole.example", "each.example"} {
			if got := ask(t, port, "POST", host, "/quick", ""); got != "200 awake" {
				t.Errorf("after timeouts %s answers %s", host, got)
			}
		}
	}
	if stats := e.get("/stats?filter=ejections_enforced_total"); strings.Count(stats, ": 0") != 2 {
		t.Error("an endpoint was ejected for being slow:", stats)
	}
}

// A request that every endpoint hangs up on is its client's trouble alone: who asks for something else is answered, while
// an address where nobody listens is left alone after few tries.
func TestDeadlyRequestOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	var endpoints []netip.AddrPort
	for range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/die" {
				panic(http.ErrAbortHandler) // closes the connection
			}
			fmt.Fprint(w, "well")
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		endpoints = append(endpoints, netip.MustParseAddrPort(s.Listener.Addr().String()))
	}
	a, load := serve("store", endpoints[0])
	load.Localities[0].Endpoints = append(endpoints, netip.MustParseAddrPort("127.0.0.1:1"))
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
	for range 10 {
		if got := ask(t, port, "GET", "a.example", "/die", ""); !strings.HasPrefix(got, "503") {
			t.Errorf("the deadly request: %s", got)
		}
		for range 5 {
			if got := ask(t, port, "POST", "a.example", "/", ""); got != "200 well" {
				t.Errorf("after a deadly request: %s", got)
			}
		}
	}
	if stats := e.get("/stats?filter=ejections_enforced_total"); !strings.Contains(stats, ": 1\n") {
		t.Error("not just the address where nobody listens was ejected:", stats)
	}
}

// HTTP/2 to the backend, probed over HTTP/2 too: with the wrong protocol every host would be unhealthy.
func TestHTTP2BackendOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	a, load := serve("h2", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.Protocol, a.HealthCheck = model.H2C, &model.HealthCheck{Interval: 200 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("h2")}}})}}, load)
	e.wait("a probe", func() bool { return strings.Contains(e.get("/clusters"), "health_flags::healthy") })
	time.Sleep(500 * time.Millisecond) // two probes
	if got := ask(t, port, "GET", "a.example", "/", ""); got != "200 HTTP/2.0" {
		t.Error(got)
	}
	if stats := e.get("/stats?filter=health_check"); !strings.Contains(stats, "failure: 0") || strings.Contains(stats, "success: 0") {
		t.Error(stats)
	}
}

// An HTTP/1.1 backend that is picky about Host, as most servers are, is healthy: Envoy's own choice of a Host is the
// cluster's name, and no server takes one with a slash.
func TestProbesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	hosts := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case hosts <- r.Host + r.URL.Path:
		default:
		}
	}))
	t.Cleanup(s.Close)
	a, load := serve("shop/web/0123456789", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.HealthCheck = &model.HealthCheck{Interval: 200 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}
	a.Backends = []model.WeightedBackend{{Backend: fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}}, Port: 80, Weight: 1}}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to(a.Key)}}})}}, load)
	select {
	case got := <-hosts:
		if got != "web.shop.svc.clusterset.local/healthz" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend never saw a probe that it takes")
	}
	e.wait("a probe", func() bool { return strings.Contains(e.get("/clusters"), "health_flags::healthy") })
	if got := ask(t, port, "GET", "a.example", "/", ""); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
}

// Backends of one rule share an assignment also where only one of them has a health check, so that each can take the
// other's part: the one whose probe fails loses its part, the one that is not probed keeps it until it is dead.
func TestOneOfTwoIsCheckedOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	var probe atomic.Int32
	probe.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz":
		case r.Host != "store.shop.svc.clusterset.local":
			w.WriteHeader(http.StatusMisdirectedRequest)
		default:
			w.WriteHeader(int(probe.Load()))
		}
		fmt.Fprint(w, "checked")
	}))
	t.Cleanup(s.Close)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, "plain")
	}))
	t.Cleanup(plain.Close)
	a, load := serve("store", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.HealthCheck = &model.HealthCheck{Interval: 100 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}
	a.Backends = append([]model.WeightedBackend{{Backend: importNamed("plain"), Port: 80, Weight: 1, Unchecked: true}}, a.Backends...)
	load.Localities[0].Weight /= 2
	load.Localities = append(load.Localities, lbsync.Locality{Backend: importNamed("plain"), Cluster: "us-west", Unchecked: true,
		Weight: lbsync.Whole / 2, Endpoints: []netip.AddrPort{netip.MustParseAddrPort(plain.Listener.Addr().String())}})
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
	becomes := func(why string, want map[string]int) {
		t.Helper()
		e.wait(why, func() bool { return maps.Equal(counted(t, port, "GET", 20), want) })
	}
	becomes("both", map[string]int{"200 checked": 10, "200 plain": 10})
	probe.Store(503)
	becomes("the checked one fails its probe", map[string]int{"200 plain": 20})
	probe.Store(200)
	becomes("it is well again", map[string]int{"200 checked": 10, "200 plain": 10})
	plain.Close()
	becomes("the other is dead", map[string]int{"200 checked": 20})
}

// askTLS says which certificate and status an HTTPS request gets.
func askTLS(port uint16, sni, host, version string) string {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{version}},
		ForceAttemptHTTP2: version == "h2", DisableKeepAlives: true,
	}
	request, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", port), nil)
	request.Host = host
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "closed"
	}
	defer response.Body.Close()
	return fmt.Sprintf("%s: %d", response.TLS.PeerCertificates[0].DNSNames[0], response.StatusCode)
}

func certificate(t *testing.T, host string) model.Secret {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return model.Secret{Name: "infra/" + host,
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		PrivateKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})}
}
