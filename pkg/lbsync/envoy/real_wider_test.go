package envoy_test

import (
	"fmt"
	"net/http"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// redirectRule redirects what is under a path to a host, so that no backend is needed.
func redirectRule(path, to string) gatewayv1.HTTPRouteRule {
	return gatewayv1.HTTPRouteRule{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &path}}},
		Filters: []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestRedirect,
			RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Hostname: ptr(gatewayv1.PreciseHostname(to))}}}}
}

// An Envoy serves what no rule of a hostname matches by the rules of wider hostnames: an ACME solver's route takes nothing
// from a redirect of everything. The narrower hostname comes first, whatever its rules are.
func TestWiderRulesOnARealEnvoy(t *testing.T) {
	x := newCostly(t)
	x.add(nil, redirectRule("/", "any.test"))
	x.add([]string{"*.example.org"}, redirectRule("/api", "wildcard.test"))
	x.add([]string{"www.example.org"}, redirectRule("/.well-known/acme-challenge/token", "acme.test"))
	x.add([]string{"all.example.org"}, redirectRule("/", "all.test"))
	p, _ := x.program(t)
	e := load(t, p)
	defer func() { _ = e.process.Kill() }()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, c := range [][3]string{
		{"www.example.org", "/.well-known/acme-challenge/token", "acme.test"},
		{"www.example.org", "/api/x", "wildcard.test"},
		{"www.example.org", "/x", "any.test"},
		{"www.example.org:80", "/x", "any.test"},
		{"other.example.org", "/api", "wildcard.test"},
		{"other.example.org", "/x", "any.test"},
		{"all.example.org", "/api", "all.test"},
		{"elsewhere.test", "/api", "any.test"},
		{"elsewhere.test", "/a/b/c/d%2Fe", "any.test"},
		{"www.example.org", "/a/b/c/d%2Fe", "any.test"},
		{"www.example.org", "/.well-known%2Facme-challenge/token", ""}, // what its backend may take for a path of the narrower rule
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", x.port, c[1]), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = c[0]
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if c[2] == "" && response.StatusCode == http.StatusForbidden {
			continue
		}
		if location, err := response.Location(); err != nil || location.Hostname() != c[2] {
			t.Errorf("%s%s: %s %v, want a redirect to %s", c[0], c[1], response.Status, location, c[2])
		}
	}
}
