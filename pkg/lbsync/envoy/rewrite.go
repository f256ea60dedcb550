package envoy

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// rewrite sets the changes of the request's host and path.
func rewrite(out *routev3.RouteAction, rule model.Rule) {
	if rule.Rewrite == nil {
		return
	}
	if rule.Rewrite.Hostname != "" {
		out.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: rule.Rewrite.Hostname}
	}
	switch p := rule.Rewrite.Path; {
	case p == nil:
	case p.Full != nil: // as a regular expression, because that does not touch the query
		out.RegexRewrite = substitution("^/.*$", *p.Full)
	case p.Prefix != nil:
		out.PrefixRewrite, out.RegexRewrite = prefixChange(rule.Match.Path.Value, *p.Prefix)
	}
}

// prefixChange replaces a prefix by whole path elements: /p to /one makes /one of /p, and /one/x of /p/x. Envoy's
// prefix_rewrite is plain text, so it is right only if neither side ends in a slash.
func prefixChange(prefix, replacement string) (plain string, expression *matcherv3.RegexMatchAndSubstitute) {
	prefix, replacement = strings.TrimRight(prefix, "/"), strings.TrimRight(replacement, "/")
	switch {
	case replacement == "":
		return "", substitution("^"+regexp.QuoteMeta(prefix)+"/*", "/")
	case prefix == "":
		return "", substitution("^/", replacement+"/")
	default:
		return replacement, nil
	}
}

// substitution replaces the text that a pattern matches with literal text.
func substitution(pattern, literal string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex(pattern), Substitution: strings.ReplaceAll(literal, `\`, `\\`)}
}

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

var defaultPorts = map[string]uint16{"http": 80, "https": 443}

// redirect answers with a Location. If the request's Host has a port, Envoy would keep that port even where the scheme
// changes, so the Location names the right one, unless a new hostname drops it. Otherwise the scheme's default port is
// left out (apis/v1 HTTPRequestRedirectFilter).
func redirect(l lbsync.Listener, rule model.Rule, hostHasPort bool) *routev3.Route_Redirect {
	r := rule.Redirect
	out := &routev3.RedirectAction{ResponseCode: routev3.RedirectAction_FOUND, HostRedirect: r.Hostname}
	if code, ok := redirectCodes[r.StatusCode]; ok {
		out.ResponseCode = code
	}
	scheme, port := strings.ToLower(string(l.Protocol)), l.Port
	if r.Scheme != "" {
		scheme = r.Scheme
		port = defaultPorts[scheme]
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	if r.Port != 0 {
		port = r.Port
	}
	if port != defaultPorts[scheme] || r.Hostname == "" && hostHasPort {
		out.PortRedirect = uint32(port)
	}
	switch p := r.Path; {
	case p == nil:
	case p.Full != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: *p.Full}
	case p.Prefix != nil:
		plain, expression := prefixChange(rule.Match.Path.Value, *p.Prefix)
		if expression != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: expression}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: plain}
		}
	}
	return &routev3.Route_Redirect{Redirect: out}
}
