package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// No filter of a rule or of a backendRef changes a header of requests that edges
// obey, or with which they vouch for the client, in any spelling.
func TestRequestHeadersCannotSteerEdges(t *testing.T) {
	f := newFixture(t)
	refused := []string{"x-envoy-retry-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms", "x-envoy-original-path", "x-envoy-anything",
		"x-crossway-scope", "x-forwarded-for", "x-forwarded-client-cert", "te", "trailer", "keep-alive", "proxy-connection", "http2-settings",
		"connection", "content-length", "transfer-encoding", "upgrade", "host", ":authority", ":path", ":method", ":scheme"}
	allowed := []string{"x-forwarded-prefix", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "traceparent", "x-b3-traceid", "x-real-ip", "x-envoyer", "authorization"}
	for _, name := range slices.Concat(refused, allowed) {
		steers := slices.Contains(refused, name)
		for _, spelled := range []string{name, strings.ToUpper(name)} {
			for _, action := range []string{`set: [{name: %q, value: "1"}]`, `add: [{name: %q, value: "1"}]`, `remove: [%q]`} {
				filter := "{type: RequestHeaderModifier, requestHeaderModifier: {" + fmt.Sprintf(action, spelled) + "}}"
				for _, rule := range []string{"filters: [" + filter + "]", "backendRefs: [{name: store, port: 80, filters: [" + filter + "]}]"} {
					if got := f.ruleProblem(rule); strings.Contains(got, "cannot be changed, because edges") != steers {
						t.Errorf("%s: %s", rule, got)
					}
				}
			}
		}
	}
}

// What is written into the first line of a request or of a health check has only
// visible ASCII.
func TestPathsAreVisible(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/a\tb", "/\u00e4", "/a b", "/a\x7f", "/a\x00", "/a\u200b"} {
		for _, modifier := range []string{"type: ReplaceFullPath, replaceFullPath", "type: ReplacePrefixMatch, replacePrefixMatch"} {
			for _, rule := range []string{"filters: [{type: URLRewrite, urlRewrite: {path: {%s: %q}}}]", "backendRefs: []\nfilters: [{type: RequestRedirect, requestRedirect: {path: {%s: %q}}}]"} {
				if got := f.ruleProblem(fmt.Sprintf(rule, modifier, path)); !strings.Contains(got, "cannot be sent") {
					t.Errorf("%q as %s: %s", path, modifier, got)
				}
			}
		}
		if isVisible(path) {
			t.Errorf("%q is visible", path)
		}
	}
}
