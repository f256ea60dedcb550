package envoy

import (
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// proxyHeaders are the headers by which proxies tell backends what a request was like when it reached them. A client that
// is not a trusted proxy has no say in them. Envoy itself writes x-forwarded-for, x-forwarded-proto and x-request-id, and
// removes x-forwarded-client-cert.
var proxyHeaders = []string{"forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
	"x-forwarded-prefix", "x-original-host", "x-original-url", "x-rewrite-url"}

// edgeHeaders are the other headers of requests that edges write, remove or go by. A "*" stands for any end.
var edgeHeaders = []string{"x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert", "x-request-id", "x-envoy-*", "x-crossway-*",
	"content-length", "transfer-encoding", "keep-alive", "proxy-connection", "http2-settings"}

// lookalikes is a pattern of the names that are equal to one of these but for '_' in the place of '-'. Backends that turn
// headers into variables (CGI, WSGI, Rack, PHP) cannot tell them apart.
func lookalikes(names []string) string {
	var patterns []string
	for _, name := range names {
		for at, c := range name {
			if c == '-' { // the first that differs; those after it may be either
				patterns = append(patterns, name[:at]+"_"+strings.NewReplacer("-", "[-_]", "*", ".*").Replace(name[at+1:]))
			}
		}
	}
	return strings.Join(patterns, "|")
}

// maxNamesProgram is a bound on the RE2 program of removeMatching, which takes about 660 steps. The field is deprecated in
// favour of a key of the bootstrap's runtime. An edge whose bootstrap lacks that key allows 100 steps, and would refuse all
// listeners.
const maxNamesProgram = 1000

func removeMatching(pattern string) *mutationv3.HeaderMutation {
	names := &matcherv3.RegexMatcher{Regex: pattern,
		EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{ //nolint:staticcheck // deprecated, see above
			MaxProgramSize: wrapperspb.UInt32(maxNamesProgram)}}} //nolint:staticcheck // the same
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
		KeyMatcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: names}}}}}
}

// earlyRemovals removes headers before a route is chosen, so the filters of routes may set them: lookalikes of those that
// edges handle, what edges alone send (Envoy itself removes only some of x-envoy-*) and, where no trusted proxy is in front,
// proxyHeaders. It is one pattern, because each name by itself would be looked for in each request.
func earlyRemovals(trusted bool) *earlyv3.HeaderMutation {
	pattern := lookalikes(slices.Concat(proxyHeaders, edgeHeaders)) + "|x-(?:crossway|envoy)-.*"
	if !trusted {
		pattern += "|" + strings.Join(proxyHeaders, "|")
	}
	return &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{removeMatching(pattern)}}
}

// maxSeparators is up to how many '-' and '_' of a name all its lookalikes are removed.
const maxSeparators = 5

// withoutLookalikes makes a route remove what clients could send to stand in for a header that its rule sets or removes.
// These are names and no pattern, because edges compile the patterns of all routes again for each change.
func withoutLookalikes(l lbsync.Listener, rule model.Rule, route *routev3.Route) {
	if l.Clients.Underscores != model.AllowUnderscores || rule.Forward == nil {
		return
	}
	changed := changedNames(nil, rule.Request)
	for _, t := range rule.Forward.Targets {
		changed = changedNames(changed, t.Request)
	}
	slices.Sort(changed)
	changed = slices.Compact(changed)
	for _, name := range changed {
		for _, other := range variants(name) {
			if !slices.Contains(changed, other) {
				route.RequestHeadersToRemove = append(route.RequestHeadersToRemove, other)
			}
		}
	}
}

// variants are the names that are equal to a name but for its first maxSeparators separators.
func variants(name string) (names []string) {
	var at []int
	for i := range len(name) {
		if (name[i] == '-' || name[i] == '_') && len(at) < maxSeparators {
			at = append(at, i)
		}
	}
	for chosen := 1; chosen < 1<<len(at); chosen++ {
		other := []byte(name)
		for k, i := range at {
			if chosen&(1<<k) != 0 {
				other[i] ^= '-' ^ '_'
			}
		}
		names = append(names, string(other))
	}
	return names
}

func changedNames(names []string, c model.HeaderChanges) []string {
	for _, h := range slices.Concat(c.Set, c.Add) {
		names = append(names, h.Name)
	}
	return append(names, c.Remove...)
}

// tellHost tells backends the host that the client asked for, where a rule rewrites it and no filter sets or removes that
// header: Envoy would add the host after all filters.
func tellHost(l lbsync.Listener, rule model.Rule, out *routev3.RouteAction) {
	const header = "x-forwarded-host"
	decides := func(c model.HeaderChanges) bool {
		return slices.Contains(c.Remove, header) || slices.ContainsFunc(c.Set, func(h model.Header) bool { return h.Name == header })
	}
	own := decides(rule.Request) || slices.ContainsFunc(rule.Forward.Targets, func(t model.Target) bool { return decides(t.Request) })
	out.AppendXForwardedHost = out.GetHostRewriteLiteral() != "" && !l.Clients.HideHost && !own
}
