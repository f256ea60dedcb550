package envoy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// misdirected answers 421 for hostnames that other chains of the port serve.
func misdirected(c model.Chain) *routev3.VirtualHost {
	var domains []string
	for _, d := range c.Misdirected {
		taken := slices.ContainsFunc(c.Hosts, func(h model.VirtualHost) bool { return strings.EqualFold(h.Hostname, d) })
		if !taken && !slices.Contains(domains, d) { // Envoy refuses a domain that is there twice
			domains = append(domains, d)
		}
	}
	if len(domains) == 0 {
		return nil
	}
	return &routev3.VirtualHost{Name: "misdirected", Domains: domains, Routes: []*routev3.Route{{
		Name: "misdirected", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: respond(model.Respond{StatusCode: 421})}}}
}

// virtualHostRoutes are the Envoy routes of a host's rules. They do not depend on the hostname: hosts of equal rules share
// them. Rules of a wider host come after those of a narrower one (depths).
func virtualHostRoutes(l lbsync.Listener, rules []model.Rule, guards slashGuards, before depths) (routes []*routev3.Route, faults []Fault) {
	for _, rule := range rules {
		for _, route := range routesFor(l, rule) {
			guards.protect(rule, route, before)
			if err := validateRoute(rule, route); err != nil {
				faults = append(faults, Fault{TypeURL: resourcev3.RouteType, Part: route.GetName(), Message: err.Error()})
				if route = answering500(route); validate(route) != nil {
					continue // not even the match is valid
				}
			}
			routes = append(routes, route)
		}
	}
	return routes, faults
}

// answering500 replaces a route that Envoy would refuse: it keeps the match and answers 500, so that no request falls
// through to a route of somebody else.
func answering500(route *routev3.Route) *routev3.Route {
	return &routev3.Route{Name: route.GetName(), Match: route.GetMatch(), Action: respond(model.Respond{StatusCode: 500})}
}

func validateRoute(rule model.Rule, route *routev3.Route) error {
	changes := []model.HeaderChanges{rule.Request, rule.Response}
	if rule.Forward != nil {
		for _, t := range rule.Forward.Targets {
			changes = append(changes, t.Request, t.Response)
		}
	}
	for _, c := range changes {
		for _, h := range slices.Concat(c.Set, c.Add) {
			if err := validateHeader(h.Name); err != nil {
				return err
			}
		}
		for _, name := range c.Remove {
			if err := validateHeader(name); err != nil {
				return err
			}
		}
	}
	return validate(route)
}

// ruleName names a rule in access logs: the route, the index of the rule and of the match, and the rule's own name.
func ruleName(o model.Origin) string {
	name := fmt.Sprintf("%s/%d/%d", model.RouteName(o.Route), o.Rule, o.Match)
	if o.Name != "" {
		name += "/" + o.Name
	}
	return name
}

// routesFor returns the Envoy routes of a rule: one, but two of a redirect, because Envoy keeps the port of a Host that
// has one. Envoy makes all routes of a chain again for each that changes, so they hold no more than what differs.
func routesFor(l lbsync.Listener, rule model.Rule) []*routev3.Route {
	newRoute := func() *routev3.Route {
		r := &routev3.Route{Name: ruleName(rule.Origin), Match: match(rule.Match)}
		if rule.Forward == nil || isSingle(*rule.Forward) {
			r.RequestHeadersToAdd, r.RequestHeadersToRemove = headers(rule.Request)
		}
		r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = headers(rule.Response)
		return r
	}
	r := newRoute()
	switch {
	case rule.Redirect != nil:
		withPort := newRoute()
		withPort.Match.Headers = append(withPort.Match.Headers, &routev3.HeaderMatcher{Name: ":authority",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{ // no regex: a host may be long
				MatchPattern: &matcherv3.StringMatcher_Contains{Contains: ":"}}}})
		withPort.Action, r.Action = redirect(l, rule, true), redirect(l, rule, false)
		return []*routev3.Route{withPort, r}
	case rule.Forward == nil || !usable(*rule.Forward):
		answer := model.Respond{StatusCode: 500}
		if rule.Respond != nil {
			answer = *rule.Respond
		}
		r.Action = respond(answer)
	default:
		action := forward(rule)
		tellHost(l, rule, action)
		withoutLookalikes(l, rule, r)
		r.Action = &routev3.Route_Route{Route: action}
	}
	return []*routev3.Route{r}
}

// usable reports whether any target exists and has a weight.
func usable(f model.Forward) bool {
	return slices.ContainsFunc(f.Targets, func(t model.Target) bool { return t.Assignment != "" && t.Weight > 0 })
}

func respond(r model.Respond) *routev3.Route_DirectResponse {
	out := &routev3.DirectResponseAction{Status: uint32(r.StatusCode)}
	if r.Body != "" {
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: r.Body}}
	}
	return &routev3.Route_DirectResponse{DirectResponse: out}
}

func match(m model.Match) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	switch path := strings.TrimRight(m.Path.Value, "/"); {
	case m.Path.Kind == model.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path.Value}
	case m.Path.Kind == model.PathRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Path.Value)}
	case path == "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}
	}
	if m.Method != "" {
		out.Headers = append(out.Headers, &routev3.HeaderMatcher{Name: ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: text(m.Method, false)}})
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, &routev3.HeaderMatcher{Name: h.Name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: text(h.Value, h.Regex)}})
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{Name: q.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: text(q.Value, q.Regex)}})
	}
	return out
}

func text(value string, isRegex bool) *matcherv3.StringMatcher {
	if isRegex {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(value)}}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

func regex(pattern string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: pattern} }

// headers translates header changes. Values are literal. Envoy reads them as format strings, so an unescaped
// "%REQ(authorization)%" would leak that header.
func headers(c model.HeaderChanges) (add []*corev3.HeaderValueOption, remove []string) {
	option := func(h model.Header, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{AppendAction: action, KeepEmptyValue: true,
			Header: &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")}}
	}
	for _, h := range c.Set {
		add = append(add, option(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, h := range c.Add {
		add = append(add, option(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return add, slices.Clone(c.Remove)
}

// forward sends a rule's requests to its targets.
func forward(rule model.Rule) *routev3.RouteAction {
	out := &routev3.RouteAction{
		// From the end of the request to the end of its answer, or to the answer to an upgrade: what a client still sends,
		// and an upgraded connection, are not cut. Envoy's default would cut an answer after 15 s.
		Timeout:     durationpb.New(ptr.Deref(rule.Timeout, 0)),
		RetryPolicy: handshakeLimit(rule),
		IdleTimeout: idleTimeout(rule),
	}
	if isSingle(*rule.Forward) {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: rule.Forward.Targets[0].Assignment}
	} else {
		out.ClusterSpecifier, out.ClusterNotFoundResponseCode = weighted(rule)
	}
	rewrite(out, rule)
	for _, m := range rule.Mirrors {
		if m.Assignment == "" { // a mirror that cannot be used costs the client nothing
			continue
		}
		out.RequestMirrorPolicies = append(out.RequestMirrorPolicies, mirror(m))
	}
	return out
}

// idleTimeout returns how long a rule's requests may be idle; nil: as long as the listener says. No answer is cut before
// the rule's own timeouts.
func idleTimeout(rule model.Rule) *durationpb.Duration {
	var longest time.Duration
	if rule.BackendTimeout != nil {
		longest = *rule.BackendTimeout * (1 + maxRetriesWithTimeout)
	}
	switch {
	case rule.Timeout == nil:
	case *rule.Timeout == 0:
		return durationpb.New(0)
	default:
		longest = *rule.Timeout
	}
	if longest <= streamIdleTimeout {
		return nil
	}
	return durationpb.New(longest)
}

// isSingle reports whether a rule has one target without header changes of its own.
func isSingle(f model.Forward) bool {
	return len(f.Targets) == 1 && isEmpty(f.Targets[0].Request) && isEmpty(f.Targets[0].Response)
}

// weighted divides a rule over several targets. A target that cannot be used is a cluster that does not exist, answered
// 500 for exactly its part. Envoy would apply a target's changes to the request before those of its rule, so the target
// has both.
func weighted(rule model.Rule) (*routev3.RouteAction_WeightedClusters, routev3.RouteAction_ClusterNotFoundResponseCode) {
	code := routev3.RouteAction_SERVICE_UNAVAILABLE
	out := &routev3.WeightedCluster{}
	for _, t := range rule.Forward.Targets {
		w := &routev3.WeightedCluster_ClusterWeight{Name: t.Assignment, Weight: number(t.Weight)}
		if t.Assignment == "" {
			w.Name, code = missingCluster, routev3.RouteAction_INTERNAL_SERVER_ERROR
		}
		ofRule := without(rule.Request, t.Request.Remove)
		w.RequestHeadersToAdd, w.RequestHeadersToRemove = headers(ofRule)
		add, remove := headers(t.Request)
		w.RequestHeadersToAdd = append(w.RequestHeadersToAdd, add...)
		w.RequestHeadersToRemove = append(w.RequestHeadersToRemove, remove...)
		w.ResponseHeadersToAdd, w.ResponseHeadersToRemove = headers(t.Response)
		out.Clusters = append(out.Clusters, w)
	}
	return &routev3.RouteAction_WeightedClusters{WeightedClusters: out}, code
}

func mirror(m model.Mirror) *routev3.RouteAction_RequestMirrorPolicy {
	parts := uint32(1_000_000)
	if m.Denominator > 0 {
		parts = uint32(min(uint64(m.Numerator)*1_000_000/uint64(m.Denominator), 1_000_000))
	}
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster:                       m.Assignment,
		DisableShadowHostSuffixAppend: true,
		RuntimeFraction: &corev3.RuntimeFractionalPercent{
			DefaultValue: &typev3.FractionalPercent{Numerator: parts, Denominator: typev3.FractionalPercent_MILLION}},
	}
}

// without drops the headers that would be set or added and then removed: Envoy removes first.
func without(c model.HeaderChanges, removed []string) model.HeaderChanges {
	isRemoved := func(h model.Header) bool { return slices.Contains(removed, h.Name) }
	c.Set, c.Add = slices.DeleteFunc(slices.Clone(c.Set), isRemoved), slices.DeleteFunc(slices.Clone(c.Add), isRemoved)
	return c
}

func isEmpty(c model.HeaderChanges) bool { return len(c.Set)+len(c.Add)+len(c.Remove) == 0 }
