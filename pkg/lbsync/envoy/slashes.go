package envoy

import (
	"fmt"
	"strings"

	configrbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// slashFilters refuse paths that backends may take for paths of another rule, where escaped or double slashes are kept:
// "/admin%2Fx", "//admin/x" or "/x/..%2Fadmin" for "/admin/x". A rule for "/" enables one of them (slashGuards) if its host
// has longer rules. The n-th refuses such slashes within n segments, the last one everywhere, and all beside a dot segment.
// They belong to the chain, because a regular expression for each host would cost edges 0.1 ms and 40 KB of each.
var slashFilters = func() (filters []*hcmv3.HttpFilter) {
	for depth := 1; depth <= anyDepth; depth++ {
		filters = append(filters, &hcmv3.HttpFilter{Name: slashFilter(depth), Disabled: true,
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(refusal(slashFilter(depth), ambiguousPaths(depth)))}})
	}
	return filters
}()

const (
	anySlash     = `(?:/|%2[fF]|%5[cC])`
	escapedSlash = `%(?:2[fF]|5[cC])`
	anyDepth     = 4
)

func slashFilter(depth int) string { return fmt.Sprintf("slashes-%d", depth) }

// ambiguousPaths is a pattern of paths, without query. Dot segments between plain slashes are resolved before.
func ambiguousPaths(depth int) string {
	if depth >= anyDepth {
		return ".*(?:" + escapedSlash + "|//).*"
	}
	within := fmt.Sprintf("(?:/[^/]+){0,%d}/(?:[^/]*%s|/)", depth-1, escapedSlash)
	if depth == 1 { // RE2 knows no {0,0}
		within = fmt.Sprintf("/(?:[^/]*%s|/)", escapedSlash)
	}
	dots := `.*(?:` + escapedSlash + `\.\.?` + anySlash + `|` + anySlash + `\.\.?` + escapedSlash + `)`
	return "(?:" + within + "|" + dots + ").*|.*" + escapedSlash + `\.\.?`
}

// refusal answers requests for the paths of a pattern with 403.
func refusal(name, pattern string) *rbacv3.RBAC {
	path := &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: text(pattern, true)}}
	return &rbacv3.RBAC{Rules: &configrbacv3.RBAC{Action: configrbacv3.RBAC_DENY, Policies: map[string]*configrbacv3.Policy{name: {
		Permissions: []*configrbacv3.Permission{{Rule: &configrbacv3.Permission_UrlPath{UrlPath: path}}},
		Principals:  []*configrbacv3.Principal{{Identifier: &configrbacv3.Principal_Any{Any: true}}}}}}}
}

// slashGuards says which slash filter the rules of a host need. Only a rule that would get a request instead of a longer
// one needs any: the prefix "/" beside "/admin", and never "/admin" itself.
type slashGuards struct {
	deepest map[string]int // by path: segments of the longest path below it
	regexes bool           // regular expressions compare paths in ways of their own
	paths   bool           // there are rules for other paths than "/"
}

func newSlashGuards(l lbsync.Listener, rules []model.Rule) *slashGuards {
	g := &slashGuards{deepest: map[string]int{}}
	if l.Clients.EscapedSlashes != model.KeepEscapedSlashes && l.Clients.MergeSlashes {
		return g
	}
	for i := range rules {
		m := rules[i].Match.Path
		path := strings.TrimRight(m.Value, "/")
		if m.Kind == model.PathPrefix && path == "" {
			continue
		}
		g.paths, g.regexes = true, g.regexes || m.Kind == model.PathRegex
		depth := max(strings.Count(path, "/"), 1)
		for above, more := path, true; more && m.Kind != model.PathRegex; {
			if at := strings.LastIndexByte(above, '/'); at >= 0 {
				above = above[:at]
			} else {
				above, more = "", false
			}
			if more || path == "" {
				g.deepest[above] = max(g.deepest[above], depth)
			}
		}
	}
	return g
}

// depth is the number of segments of the longest path of the rules, as rules that come after all of them need it.
func (g *slashGuards) depth() int {
	if g.regexes {
		return anyDepth
	}
	return min(g.deepest[""], anyDepth)
}

// protect makes a route refuse what its rule must not get. before is the depth of rules that come first.
func (g *slashGuards) protect(rule model.Rule, route *routev3.Route, before int) {
	m := rule.Match.Path
	depth := max(g.deepest[strings.TrimRight(m.Value, "/")], before)
	switch {
	case !g.paths && before == 0 || m.Kind == model.PathExact:
		return
	case m.Kind == model.PathRegex || g.regexes:
		depth = anyDepth
	case depth == 0:
		return
	}
	route.TypedPerFilterConfig = map[string]*anypb.Any{slashFilter(min(depth, anyDepth)): enabledFilter}
}
