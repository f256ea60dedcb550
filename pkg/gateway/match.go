package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/gateway/model"
)

// planMatches reads a rule's matches. A rule without matches matches every path.
// An invalid match is left out, and the first one's problem is returned.
func planMatches(given []gatewayv1.HTTPRouteMatch, regexes *regexes) (plans []matchPlan, problem string) {
	if len(given) == 0 {
		return []matchPlan{{match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/"}}}}, ""
	}
	plans = make([]matchPlan, 0, len(given))
	for i := range given {
		match, matchProblem := planMatch(&given[i], regexes)
		if matchProblem != "" {
			problem = cmp.Or(problem, fmt.Sprintf("matches[%d]: %s", i, matchProblem))
			continue
		}
		plans = append(plans, matchPlan{index: i, match: match})
	}
	return plans, problem
}

func planMatch(given *gatewayv1.HTTPRouteMatch, regexes *regexes) (match model.Match, problem string) {
	if match.Path, problem = planPath(given.Path, regexes); problem != "" {
		return match, problem
	}
	if given.Method != nil {
		match.Method = string(*given.Method)
		if !httpguts.ValidHeaderFieldName(match.Method) {
			return match, fmt.Sprintf("method %q is not one of HTTP", shortened(match.Method))
		}
		if match.Method == string(gatewayv1.HTTPMethodConnect) {
			return match, "method CONNECT is not supported; remove the match"
		}
	}
	for i := range given.Headers {
		header := &given.Headers[i]
		kind := string(gatewayv1.HeaderMatchExact)
		if header.Type != nil {
			kind = string(*header.Type)
		}
		name := strings.ToLower(string(header.Name))
		if name == "host" {
			return match, "a header match on Host is not supported; use spec.hostnames"
		}
		if match.Headers, problem = regexes.withValue(match.Headers, kind, model.ValueMatch{Name: name, Value: header.Value}); problem != "" {
			return match, "header " + problem
		}
	}
	for i := range given.QueryParams {
		param := &given.QueryParams[i]
		kind := string(gatewayv1.QueryParamMatchExact)
		if param.Type != nil {
			kind = string(*param.Type)
		}
		if match.Query, problem = regexes.withValue(match.Query, kind, model.ValueMatch{Name: string(param.Name), Value: param.Value}); problem != "" {
			return match, "query parameter " + problem
		}
	}
	return match, ""
}

// withValue adds a match, unless there is one of that name already: of several,
// the first counts (apis/v1 HTTPRouteMatch).
func (x *regexes) withValue(matches []model.ValueMatch, kind string, match model.ValueMatch) ([]model.ValueMatch, string) {
	if !httpguts.ValidHeaderFieldName(match.Name) || len(match.Name) > 256 {
		return matches, fmt.Sprintf("%q has characters that no name may have (RFC 9110, token)", shortened(match.Name))
	}
	switch kind {
	case string(gatewayv1.HeaderMatchExact):
		if !httpguts.ValidHeaderFieldValue(match.Value) {
			return matches, fmt.Sprintf("%q: the value has control characters", match.Name)
		}
	case string(gatewayv1.HeaderMatchRegularExpression):
		if problem := x.problem(match.Value); problem != "" {
			return matches, fmt.Sprintf("%q: %s", match.Name, problem)
		}
		match.Regex = true
	default:
		return matches, fmt.Sprintf("%q: match type %q is not supported; use Exact or RegularExpression", match.Name, kind)
	}
	if slices.ContainsFunc(matches, func(m model.ValueMatch) bool { return m.Name == match.Name }) {
		return matches, ""
	}
	return append(matches, match), ""
}

func planPath(given *gatewayv1.HTTPPathMatch, regexes *regexes) (model.PathMatch, string) {
	kind, path := gatewayv1.PathMatchPathPrefix, "/"
	if given != nil && given.Type != nil {
		kind = *given.Type
	}
	if given != nil && given.Value != nil {
		path = *given.Value
	}
	switch kind {
	case gatewayv1.PathMatchExact:
		return model.PathMatch{Kind: model.PathExact, Value: path}, pathProblem(path)
	case gatewayv1.PathMatchPathPrefix:
		problem := pathProblem(path)
		if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
			path = trimmed // a trailing slash is ignored (apis/v1 PathMatchPathPrefix)
		} else {
			path = "/"
		}
		return model.PathMatch{Kind: model.PathPrefix, Value: path}, problem
	case gatewayv1.PathMatchRegularExpression:
		return model.PathMatch{Kind: model.PathRegex, Value: path}, regexes.problem(path)
	default:
		return model.PathMatch{}, fmt.Sprintf("path match type %q is not supported; use Exact, PathPrefix or RegularExpression", kind)
	}
}

// pathProblem says why no request path that a rule is tried on can have this value, or
// "". Edges resolve "/../", and redirect a request with "//" or %2f that a longer match
// is about (lbsync/envoy, slashGuard).
func pathProblem(path string) string {
	switch lower := strings.ToLower(path); {
	case !strings.HasPrefix(path, "/"):
		return fmt.Sprintf("path %q does not begin with /", shortened(path))
	case len(path) > 1024:
		return "path is longer than 1024 characters"
	case strings.ContainsAny(path, "?#") || !isVisible(path):
		return fmt.Sprintf("path %q has characters that no path may have", shortened(path))
	case strings.Contains(path, "//") || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") ||
		strings.Contains(lower, "%2f"):
		return fmt.Sprintf("path %q has //, /./, /../ or %%2f, and requests never match it; match the path before that, which requests with // or %%2f match, too", shortened(path))
	default:
		return ""
	}
}

func ruleOrder(a, b *model.Rule) int { return matchOrder(&a.Match, &b.Match) }

// matchOrder compares two matches by the Gateway API's precedence: the match that
// is tried first is the lesser (apis/v1 HTTPRouteRule.Matches). Equal matches keep
// the order in which rules are collected: by route, then by position.
func matchOrder(a, b *model.Match) int {
	rank := func(kind model.PathKind) int {
		switch kind {
		case model.PathExact:
			return 0
		case model.PathRegex:
			return 1
		default:
			return 2
		}
	}
	flag := func(set bool) int {
		if set {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(rank(a.Path.Kind), rank(b.Path.Kind)),
		cmp.Compare(len(b.Path.Value), len(a.Path.Value)),
		cmp.Compare(flag(a.Method != ""), flag(b.Method != "")),
		cmp.Compare(len(b.Headers), len(a.Headers)),
		cmp.Compare(len(b.Query), len(a.Query)),
	)
}
