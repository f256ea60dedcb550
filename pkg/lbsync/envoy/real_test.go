package envoy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

func TestRulesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, blueLoad := serve("blue", backend(t, "blue"))
	green, greenLoad := serve("green", backend(t, "green"))
	gone, goneLoad := serve("gone", netip.MustParseAddrPort("127.0.0.1:1"))
	goneLoad.Localities, goneLoad.Drop = nil, traffic.TotalParts
	origin := func(n int) model.Origin {
		return model.Origin{Route: fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "site", Name: "home"}}, Rule: n}
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
		{"GET", "a.example", "//p//x", "", "403 "},
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
		{"GET", "a.example", "/x%2fy", "", "403 "}, // a rule has a regular expression
	} {
		got := ask(t, port, c.method, c.host, c.path, c.header)
		if c.want != got && !(strings.HasSuffix(c.want, " ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s %s%s [%s]\n got %s\nwant %s", c.method, c.host, c.path, c.header, got, c.want)
		}
	}
	for _, fields := range [][]string{
		{`"path":"/exact"`, `"route":"site/home/0/0"`, `"assignment":"green"`, `"member":"us-west/shop/green"`, `"reason":"via_upstream"`},
		{`"path":"/gone"`, `"route":"site/home/18/0"`, `"assignment":"gone"`, `"flags":"UDO"`, `"reason":"unconditional_drop_overload"`},
	} {
		e.wait(fmt.Sprint("access log ", fields), func() bool {
			for line := range strings.Lines(e.log()) {
				if !slices.ContainsFunc(fields, func(w string) bool { return !strings.Contains(line, w) }) {
					return true
				}
			}
			return false
		})
	}
}

// What an Envoy counts and logs of a request: docs/traffic.md says the same.
func TestStatisticsOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	a, load := serve("a", headersOf(t))
	l := httpListener(freePort(t), model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("a")}}})
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{a}}, load)
	for range 3 {
		if got := ask(t, l.Port, "GET", "a.example", "/", ""); !strings.HasPrefix(got, "200 ") {
			t.Fatal(got)
		}
	}
	for filter, want := range map[string]string{
		`^http\..*downstream_rq_2xx$`:     ": 3",
		`^cluster\.a\.upstream_rq_total$`: ": 3",
		`^cluster\.a\..*upstream_rq_2.*`:  "", // nine lookups of names for each request
	} {
		if got := strings.TrimSpace(e.get("/stats?filter=" + url.QueryEscape(filter))); !strings.HasSuffix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	if strings.Contains(e.get("/config_dump?resource=dynamic_listeners"), "CEL(xds") {
		t.Error("the access log has CEL, which costs a request more than all other fields")
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
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{l}, Assignments: []model.Assignment{blue}, Secrets: certificatesOf(l, a, b)}, load)
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

// certificatesOf are the certificates of a listener's chains.
func certificatesOf(l lbsync.Listener, all ...model.Secret) (secrets []lbsync.Secret) {
	for _, c := range l.Chains {
		for n, name := range c.Secrets {
			k := slices.IndexFunc(all, func(s model.Secret) bool { return s.Name == name })
			secrets = append(secrets, lbsync.Secret{Secret: all[k], Name: lbsync.SecretName(&l.Listener, c.Name, n), Gateway: l.Gateway})
		}
	}
	return secrets
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
