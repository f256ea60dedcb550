package envoy

import (
	"fmt"
	"maps"
	"slices"
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
// one needs any: the prefix "/" beside "/admin", and never "/admin" itself. What counts are the longer rules of routes of the
// same namespace, and of the namespaces whose backends the rule uses: nobody else's backends have what they are about, and
// nobody else's rules refuse requests (docs/adr/0018-paths-as-clients-send-them.md).
type slashGuards map[string]*slashGuard // by namespace of routes

// slashGuard are the paths of a namespace's rules.
type slashGuard struct {
	deepest map[string]int // by path: segments of the longest path below it
	regexes bool           // regular expressions compare paths in ways of their own
}

func newSlashGuards(l lbsync.Listener, rules []model.Rule) slashGuards {
	guards := slashGuards{}
	if l.Clients.EscapedSlashes != model.KeepEscapedSlashes && l.Clients.MergeSlashes {
		return guards
	}
	for i := range rules {
		namespace := rules[i].Origin.Route.Name.Namespace
		if guards[namespace] == nil {
			guards[namespace] = &slashGuard{deepest: map[string]int{}}
		}
		guards[namespace].add(rules[i].Match.Path)
	}
	return guards
}

func (g *slashGuard) add(m model.PathMatch) {
	path := strings.TrimRight(m.Value, "/")
	if m.Kind == model.PathPrefix && path == "" {
		return
	}
	g.regexes = g.regexes || m.Kind == model.PathRegex
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

// depth is the number of the slash filter that a rule needs, 0: none. before are the depths of rules that come first.
func (g slashGuards) depth(rule model.Rule, before depths) (depth int) {
	m := rule.Match.Path
	if m.Kind == model.PathExact {
		return 0
	}
	for _, namespace := range append(slices.Clip(rule.Lenders), rule.Origin.Route.Name.Namespace) {
		depth = max(depth, before[namespace])
		switch paths := g[namespace]; {
		case paths == nil:
		case paths.regexes:
			depth = anyDepth
		default:
			depth = max(depth, paths.deepest[strings.TrimRight(m.Value, "/")])
		}
	}
	return min(depth, anyDepth)
}

// protect makes a route refuse what its rule must not get.
func (g slashGuards) protect(rule model.Rule, route *routev3.Route, before depths) {
	if depth := g.depth(rule, before); depth > 0 {
		route.TypedPerFilterConfig = map[string]*anypb.Any{slashFilter(depth): enabledFilter}
	}
}

// depths are the numbers of segments of the longest paths of rules, by namespace of their routes.
type depths map[string]int

// depths are those of the rules, as rules that come after all of them need them.
func (g slashGuards) depths() depths {
	d := depths{}
	for namespace, paths := range g {
		depth := paths.deepest[""]
		if paths.regexes {
			depth = anyDepth
		}
		if depth > 0 {
			d[namespace] = min(depth, anyDepth)
		}
	}
	return d
}

// with are the higher ones of two depths.
func (d depths) with(other depths) depths {
	all := maps.Clone(d)
	for namespace, depth := range other {
		all[namespace] = max(all[namespace], depth)
	}
	return all
}

// of are the depths for some namespaces.
func (d depths) of(namespaces []string) depths {
	some := depths{}
	for _, namespace := range namespaces {
		if d[namespace] > 0 {
			some[namespace] = d[namespace]
		}
	}
	return some
}
