package envoy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// told is a backend that answers with its name, the request's first line and host, and its headers, one a line.
func told(t *testing.T, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		lines := []string{fmt.Sprintf("%s %s %s host=%s body=%s", name, r.Method, r.RequestURI, r.Host, body)}
		for name, values := range r.Header {
			lines = append(lines, strings.ToLower(name)+": "+strings.Join(values, ","))
		}
		slices.Sort(lines[1:])
		fmt.Fprint(w, strings.Join(lines, "\n"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// answer sends bytes and returns the status, the Location if there is one, and the lines of the body.
func answer(t *testing.T, port uint16, request string) (status string, lines []string) {
	t.Helper()
	status, header, body := exchange(t, port, request)
	if status == "" {
		return "closed", nil
	}
	status, _, _ = strings.Cut(status, " ")
	if location := header.Get("location"); location != "" {
		status += " " + location
	}
	return status, strings.Split(body, "\n")
}

// settingsEdge is an edge with one listener for each of several settings, and the same two hosts on each.
func settingsEdge(t *testing.T, all ...model.ClientSettings) (ports []uint16) {
	e := startEdge(t)
	p := lbsync.Program{}
	var loads []lbsync.LoadAssignment
	for _, name := range []string{"root", "admin", "api", "any"} {
		a, load := serve(name, told(t, name))
		p.Assignments, loads = append(p.Assignments, a), append(loads, load)
	}
	changes := model.HeaderChanges{Set: []model.Header{{Name: "x-tenant-id", Value: "own"}}, Add: []model.Header{{Name: "x_under", Value: "own"}}, Remove: []string{"x-secret-key"}}
	exact := model.Match{Path: model.PathMatch{Kind: model.PathExact, Value: "/api/v4/exact"}}
	ofTarget := &model.Forward{Targets: []model.Target{{Assignment: "api", Weight: 1, Request: model.HeaderChanges{Set: []model.Header{{Name: "x-of-target", Value: "own"}}}}}}
	rules := []model.Rule{
		{Match: exact, Forward: to("admin")},
		{Match: prefix("/api/v4"), Forward: ofTarget},
		{Match: prefix("/admin"), Forward: to("admin"), Request: changes},
		{Match: prefix("/"), Forward: to("root")},
	}
	whole := []model.Rule{{Match: prefix("/"), Forward: to("any")}}
	renamed := []model.Rule{{Match: prefix("/"), Forward: to("any"), Rewrite: &model.Rewrite{Hostname: "internal.example"}}}
	of := func(namespace string, rule model.Rule) model.Rule {
		rule.Origin.Route = fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: namespace, Name: "r"}}
		return rule
	}
	shared := []model.Rule{
		of("b", model.Rule{Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: "/b/[0-9]+"}}, Forward: to("api")}),
		of("b", model.Rule{Match: prefix("/admin"), Forward: to("admin")}),
		of("c", model.Rule{Match: prefix("/c"), Forward: to("admin"), Lenders: []string{"b"}}),
		of("a", model.Rule{Match: prefix("/"), Forward: to("any")}),
	}
	narrow := model.VirtualHost{Hostname: "narrow.example", Rules: shared[:1], Wider: []model.WiderRules{{Hostname: "*", Rules: whole}}}
	for _, clients := range all {
		l := httpListener(freePort(t), model.VirtualHost{Hostname: "a.example", Rules: rules}, narrow, model.VirtualHost{Hostname: "shared.example", Rules: shared}, model.VirtualHost{Hostname: "new.example", Rules: renamed}, model.VirtualHost{Hostname: "*", Rules: whole})
		l.Clients = clients
		p.Listeners = append(p.Listeners, l)
		ports = append(ports, l.Port)
	}
	e.apply(p, loads...)
	return ports
}

// get is a request of HTTP/1.1 for a path of a host.
func get(host, path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nhost: " + host + "\r\nconnection: close\r\n" + strings.Join(append(slices.Clip(headers), "\r\n"), "\r\n")
}

// Which rule serves a path with odd slashes, and what its backend sees of them.
func TestSlashesOnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{}, model.ClientSettings{MergeSlashes: true}, model.ClientSettings{EscapedSlashes: model.RedirectEscapedSlashes},
		model.ClientSettings{EscapedSlashes: model.UnescapeSlashes}, model.ClientSettings{EscapedSlashes: model.RefuseEscapedSlashes})
	const usual, merge, redirect, unescape, refuse = 0, 1, 2, 3, 4
	for _, c := range []struct {
		setting    int
		host, path string
		want       string // the backend and its path, or the status and the path of Location
	}{
		// One rule for all paths: nothing can be hidden from it.
		{usual, "other.example", "/projects/team%2Fapp?x=1%2F2", "any /projects/team%2Fapp?x=1%2F2"},
		{usual, "other.example", "/@scope%2fname", "any /@scope%2fname"},
		{usual, "other.example", "/api/queues/%2F/q", "any /api/queues/%2F/q"},
		{usual, "other.example", "/a/../b/./%7Ec/%2e%2e/d", "any /b/d"},
		{merge, "other.example", "//x//y?u=https://z", "any /x/y?u=https://z"},
		{usual, "other.example", "/fetch/https://host/x", "any /fetch/https://host/x"},
		{usual, "other.example", "//x", "any //x"},
		// Behind what longer rules compare, and where there are none, slashes are as they were.
		{usual, "a.example", "/api/v4/projects/team%2Fapp?x=1", "api /api/v4/projects/team%2Fapp?x=1"},
		{usual, "a.example", "/admin/queues/%2F/q", "admin /admin/queues/%2F/q"},
		{usual, "a.example", "/admin/%2Fx", "admin /admin/%2Fx"},
		{usual, "a.example", "/x/y/z/team%2Fapp", "root /x/y/z/team%2Fapp"},
		{usual, "a.example", "/login?next=%2Fadmin//x", "root /login?next=%2Fadmin//x"},
		{merge, "a.example", "//admin/x", "admin /admin/x"},
		{merge, "a.example", "/%2Fadmin", "403"},
		{usual, "a.example", "/admin//x", "admin /admin//x"},
		{usual, "a.example", "/x/y/z/https://host", "root /x/y/z/https://host"},
		// No rule gets what a backend may take for the path of a longer rule.
		{usual, "a.example", "/admin%2Fx", "403"},
		{usual, "a.example", "/admin%2fx?q=1", "403"},
		{usual, "a.example", "/admin%5cx", "403"},
		{usual, "a.example", "/%61dmin%5Cx", "403"},
		{usual, "a.example", "/%2Fadmin", "403"},
		{usual, "a.example", "/%2F%5C/admin%2Fx", "403"},
		{usual, "a.example", "/public/x/y/z/..%2Fadmin", "403"},
		{usual, "a.example", "/public/x/y/z/%2e%2e%2fadmin", "403"},
		{usual, "a.example", "/x/y/z/w%2F../admin", "403"},
		{usual, "a.example", "/x/y/z/w%2F..", "403"},
		{usual, "a.example", "/x/y/z/w%5C.%2Fv", "403"},
		{usual, "a.example", "/api%2Fv4/exact", "403"},
		{usual, "a.example", "/api/v4%2Fexact", "403"},
		{usual, "a.example", "//admin", "403"},
		{usual, "a.example", "///admin/x", "403"},
		{usual, "a.example", "/api//v4/exact", "403"},
		{usual, "a.example", "/api/v4//exact", "403"},
		{usual, "a.example", "//api/v4", "403"},
		// Rules of another namespace refuse nothing, unless the rule uses backends of that namespace.
		{usual, "shared.example", "/team%2Fapp", "any /team%2Fapp"},
		{usual, "shared.example", "/admin%2Fx", "any /admin%2Fx"},
		{usual, "shared.example", "/admin/x%2Fy", "403"},
		{usual, "shared.example", "/c/x%2Fy", "403"},
		{usual, "narrow.example", "/team%2Fapp", "any /team%2Fapp"},
		{redirect, "other.example", "/x%2Fy", "307 /x/y"},
		{unescape, "a.example", "/admin%2Fx", "admin /admin/x"},
		{unescape, "a.example", "/%2Fadmin", "403"},
		{unescape, "a.example", "//admin", "403"},
		{refuse, "other.example", "/x%2Fy", "400"},
	} {
		status, lines := answer(t, ports[c.setting], get(c.host, c.path))
		got := strings.Replace(status, "http://"+c.host, "", 1)
		if status == "200" {
			words := strings.Fields(lines[0])
			got = words[0] + " " + words[2]
		}
		if got != c.want {
			t.Errorf("setting %d: %s%s\n got %s\nwant %s", c.setting, c.host, c.path, got, c.want)
		}
	}
}

// A header whose name has '_' reaches backends, unless it could stand in for one that the edge or the rule's filters handle.
func TestUnderscoresOnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{}, model.ClientSettings{TrustedHops: 1}, model.ClientSettings{Underscores: model.DropUnderscores},
		model.ClientSettings{Underscores: model.RefuseUnderscores})
	const allow, trusted, drop, refuse = 0, 1, 2, 3
	plain := []string{"ot-baggage-sentry-trace_id: 1", "sfdc_stack_depth: 1", "x_own: 1", "x-tenant: 1", "_: 1", "x_forwarded: 1", "x-request-id_2: 1"}
	forged := []string{"x_forwarded_for: 1", "x-forwarded_for: 1", "X_Forwarded-For: 1", "x_forwarded_proto: 1", "x-forwarded-client_cert: 1", "x_real_ip: 1", "X-Real_IP: 1",
		"true_client_ip: 1", "x_original_url: 1", "x_request_id: 1", "x_envoy_retry_on: 1", "x-envoy_internal: 1", "x_crossway-bytes: 1", "x_forwarded_host: 1",
		"content_length: 5", "transfer_encoding: chunked", "http2_settings: 1"}
	ofRule := []string{"x_tenant_id: 1", "x-tenant_id: 1", "X_Tenant-ID: 1", "x-under: 1", "x_secret_key: 1", "x-secret_key: 1", "x-secret-key: 1"}
	arrives := func(lines []string, header string) bool { return slices.Contains(lines, strings.ToLower(header)) }
	for _, setting := range []int{allow, trusted} {
		for path, more := range map[string][]string{"/": nil, "/admin": ofRule, "/api/v4": {"x_of_target: 1", "x-of_target: 1"}} {
			status, lines := answer(t, ports[setting], get("a.example", path, slices.Concat(plain, forged, more)...))
			if status != "200" {
				t.Fatalf("%d %s: %s", setting, path, status)
			}
			for _, header := range plain {
				if !arrives(lines, header) {
					t.Errorf("%d %s: %q does not arrive", setting, path, header)
				}
			}
			for _, header := range slices.Concat(forged, more) {
				if arrives(lines, header) {
					t.Errorf("%d %s: %q arrives", setting, path, header)
				}
			}
			for _, own := range map[string][]string{"/admin": {"x-tenant-id: own", "x_under: own"}, "/api/v4": {"x-of-target: own"}}[path] {
				if !arrives(lines, own) {
					t.Errorf("%d %s: %q does not arrive", setting, path, own)
				}
			}
		}
	}
	if _, lines := answer(t, ports[allow], get("a.example", "/", ofRule...)); !arrives(lines, "x_tenant_id: 1") {
		t.Error("a rule without filters drops x_tenant_id")
	}
	if status, lines := answer(t, ports[drop], get("a.example", "/", plain...)); status != "200" || arrives(lines, "x_own: 1") || !arrives(lines, "x-tenant: 1") {
		t.Errorf("Drop: %s %s", status, lines)
	}
	if status, _ := answer(t, ports[refuse], get("a.example", "/", "x_own: 1")); status != "400" {
		t.Errorf("Refuse: %s", status)
	}
}

// Health checks and old proxies speak HTTP/1.0, with a host or without.
func TestHTTP10OnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{}, model.ClientSettings{HTTP10Host: "a.example"}, model.ClientSettings{RefuseHTTP10: true})
	for _, c := range []struct {
		port          uint16
		request, want string
	}{
		{ports[0], "GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n", "root GET /x host=a.example body="},
		{ports[0], "POST /x HTTP/1.0\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nok", "root POST /x host=a.example body=ok"},
		{ports[0], "GET /x HTTP/1.0\r\n\r\n", "any GET /x host=127.0.0.1 body="},
		{ports[1], "GET /x HTTP/1.0\r\n\r\n", "root GET /x host=a.example body="},
		{ports[2], "GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n", "426"},
		{ports[0], "GET /x HTTP/1.1\r\n\r\n", "400"},
	} {
		status, lines := answer(t, c.port, c.request)
		if status == "200" {
			status = lines[0]
		}
		if status != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.request, status, c.want)
		}
	}
}

// Offers that nobody wants are ignored (RFC 9110 section 7.8), with and without a body; WebSockets are served.
func TestOffersToUpgradeOnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{})
	for _, offer := range []string{"TLS/1.2", "tls/1.0", "foo", "h2c", "websockets", "xwebsocket", "foo, bar", "HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11"} {
		head := "POST /x HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade, close\r\nupgrade: " + offer + "\r\n"
		if offer == "h2c" {
			head = strings.Replace(head, "Upgrade,", "Upgrade, HTTP2-Settings,", 1) + "http2-settings: AAMAAABkAAQAAP__\r\n"
		}
		for what, request := range map[string]string{
			"content-length": head + "content-length: 2\r\n\r\nok", "chunked": head + "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		} {
			status, lines := answer(t, ports[0], request)
			if status != "200" || lines[0] != "root POST /x host=a.example body=ok" || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "upgrade") || strings.HasPrefix(l, "http2") }) {
				t.Errorf("%s, %s: %s %q", offer, what, status, lines)
			}
		}
	}
}

// Whose x-request-id backends get, and when they learn the host that the client asked for.
func TestRequestIDsAndHostsOnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{}, model.ClientSettings{OwnRequestIDs: true, HideHost: true})
	for _, id := range []string{"abc-1", "0192f0c1-7c64-7cc0-9d6e-0123456789ab", strings.Repeat("x", 36)} {
		if _, lines := answer(t, ports[0], get("a.example", "/", "x-request-id: "+id)); !slices.Contains(lines, "x-request-id: "+id) {
			t.Errorf("%s: %q", id, lines)
		}
		// Envoy trusts a client of the same machine, unless there is a proxy between the two.
		if _, lines := answer(t, ports[1], get("a.example", "/", "x-forwarded-for: 6.6.6.6", "x-request-id: "+id)); slices.Contains(lines, "x-request-id: "+id) {
			t.Errorf("%s: %q", id, lines)
		}
	}
	made := func(line string) bool {
		return strings.HasPrefix(line, "x-request-id: ") && len(line) == len("x-request-id: ")+36
	}
	if _, lines := answer(t, ports[0], get("a.example", "/")); !slices.ContainsFunc(lines, made) {
		t.Errorf("no request id was made: %q", lines)
	}
	if _, lines := answer(t, ports[0], get("new.example", "/", "x-forwarded-host: evil.example")); !strings.Contains(lines[0], "host=internal.example") || !slices.Contains(lines, "x-forwarded-host: new.example") {
		t.Errorf("a rewritten host: %q", lines)
	}
	for port, host := range map[uint16]string{ports[0]: "a.example", ports[1]: "new.example"} {
		if _, lines := answer(t, port, get(host, "/", "x-forwarded-host: evil.example")); slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "x-forwarded-host") }) {
			t.Errorf("%s: %q", host, lines)
		}
	}
}

// Where a rule rewrites the host, filters have the last word on x-forwarded-host, those of a backend too.
func TestForwardedHostOfFiltersOnARealEnvoy(t *testing.T) {
	e, port := startEdge(t), freePort(t)
	a, load := serve("a", told(t, "a"))
	own := model.HeaderChanges{Set: []model.Header{{Name: "x-forwarded-host", Value: "own.example"}}}
	none := model.HeaderChanges{Remove: []string{"x-forwarded-host"}}
	host := func(name string, ofRule, ofTarget model.HeaderChanges) model.VirtualHost {
		return model.VirtualHost{Hostname: name, Rules: []model.Rule{{Match: prefix("/"), Request: ofRule, Rewrite: &model.Rewrite{Hostname: "internal.example"},
			Forward: &model.Forward{Targets: []model.Target{{Assignment: "a", Weight: 1, Request: ofTarget}}}}}}
	}
	nothing := model.HeaderChanges{}
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{httpListener(port, host("rule-removes.example", none, nothing),
		host("rule-sets.example", own, nothing), host("target-removes.example", nothing, none), host("target-sets.example", nothing, own))}}, load)
	for name, want := range map[string]string{"rule-sets.example": "x-forwarded-host: own.example", "target-sets.example": "x-forwarded-host: own.example",
		"rule-removes.example": "", "target-removes.example": ""} {
		_, lines := answer(t, port, get(name, "/"))
		got := strings.Join(slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "x-forwarded-host") }), ",")
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// The limits of headers, and that a Gateway may raise them.
func TestHeaderLimitsOnARealEnvoy(t *testing.T) {
	ports := settingsEdge(t, model.ClientSettings{}, model.ClientSettings{MaxHeaderKiB: 96, MaxHeaders: 1000})
	large, many := []string{"cookie: " + strings.Repeat("x", 40<<10)}, make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("x-%d: 1", i)
	}
	for what, c := range map[string]struct {
		port    uint16
		headers []string
		want    string
	}{
		"24 KiB": {ports[0], []string{"cookie: " + strings.Repeat("x", 24<<10)}, "200"}, "90 headers": {ports[0], many[:90], "200"},
		"40 KiB": {ports[0], large, "431"}, "200 headers": {ports[0], many, "431"},
		"40 KiB, allowed": {ports[1], large, "200"}, "200 headers, allowed": {ports[1], many, "200"},
	} {
		if status, _ := answer(t, c.port, get("a.example", "/", c.headers...)); status != c.want {
			t.Errorf("%s: %s, want %s", what, status, c.want)
		}
	}
}
