package gateway

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// fixedHeaders are the headers that edges compute, because they frame a message,
// route it, or concern one connection (RFC 9110 section 7.6.1, RFC 9113 section
// 8.2.2). Names that begin with ":" are Envoy's for the parts of the first line.
var fixedHeaders = []string{"connection", "content-length", "host", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade"}

// steeringHeaders are the headers of a request that edges obey or vouch for. A
// filter acts before Envoy reads x-envoy-*: x-envoy-retry-on would repeat POSTs.
// The other two are what edges say about the client.
var (
	steeringHeaders  = []string{"x-forwarded-for", "x-forwarded-client-cert"}
	steeringPrefixes = []string{"x-envoy-", "x-crossway-"}
)

// headerProblem says why a filter may not change a header, or "".
func headerProblem(name string) string {
	if slices.Contains(fixedHeaders, name) || strings.HasPrefix(name, ":") {
		return fmt.Sprintf("header %q cannot be changed, because edges compute it; to change the host use filter URLRewrite", shortened(name))
	}
	if !httpguts.ValidHeaderFieldName(name) || len(name) > 256 {
		return fmt.Sprintf("header %q has characters that no header name may have (RFC 9110, token)", shortened(name))
	}
	return ""
}

// requestHeaderProblem says why a filter may not change a header of a request, or
// "".
func requestHeaderProblem(name string) string {
	steers := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if slices.Contains(steeringHeaders, name) || slices.ContainsFunc(steeringPrefixes, steers) {
		return fmt.Sprintf("header %q of requests cannot be changed, because edges obey it or vouch for it; use another name", shortened(name))
	}
	return headerProblem(name)
}

// isVisible says whether a text has only visible ASCII, so that it can be part of
// a request's first line.
func isVisible(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
