package envoy_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

var (
	searchRounds = flag.Int("dearest.rounds", 40, "shapes of routes that TestDearestRoutes tries")
	searchSeed   = flag.Uint64("dearest.seed", 1, "where TestDearestRoutes begins")
)

// A shape says what the routes of a namespace look like: all are alike but for names. Each gene has a largest value.
type shape [genes]int

const (
	hosts = iota
	rules
	matches // of a rule
	pathKind
	pathLength
	headerMatches
	queryMatches
	valueLength
	method
	requestHeaders
	responseHeaders
	filterLength
	backends
	backendHeaders
	mirrors
	change // none, rewrite, redirect
	sharedHosts
	percent  // filters set values that are all per cent signs
	timeouts // both, request, none
	ports
	gateways
	wide // rules of a wildcard that has all hosts beneath
	genes
)

var limits = shape{hosts: 16, rules: 16, matches: 64, pathKind: 3, pathLength: 1000, headerMatches: 16, queryMatches: 16, valueLength: 4096, method: 1,
	requestHeaders: 16, responseHeaders: 16, filterLength: 4096, backends: 16, backendHeaders: 16, mirrors: 10, change: 2, sharedHosts: 1,
	percent: 1, timeouts: 2, ports: 4, gateways: 4, wide: 16}

// mutated is a shape with a few genes changed.
func (s shape) mutated(r *rand.Rand) shape {
	for range 1 + r.IntN(3) {
		gene := r.IntN(int(genes))
		switch r.IntN(4) {
		case 0:
			s[gene] = limits[gene]
		case 1:
			s[gene] = 0
		default:
			s[gene] = r.IntN(limits[gene] + 1)
		}
	}
	for _, gene := range []int{hosts, rules, ports, gateways} {
		s[gene] = max(s[gene], 1)
	}
	s[matches] = min(max(s[matches], 1), 128/s[rules])
	return s
}

func (s shape) filter(n int, kind gatewayv1.HTTPRouteFilterType) []gatewayv1.HTTPRouteFilter {
	if n == 0 {
		return nil
	}
	filters := setHeaders(n, s[filterLength])
	if s[percent] == 1 {
		for i := range filters[0].RequestHeaderModifier.Set {
			filters[0].RequestHeaderModifier.Set[i].Value = strings.Repeat("%", s[filterLength])
		}
	}
	if kind == gatewayv1.HTTPRouteFilterResponseHeaderModifier {
		filters[0].Type, filters[0].ResponseHeaderModifier, filters[0].RequestHeaderModifier = kind, filters[0].RequestHeaderModifier, nil
	}
	return filters
}

// add adds the i-th route of a shape.
func (s shape) add(c *costly, i int) {
	var names []string
	for k := range s[hosts] {
		if s[sharedHosts] == 1 {
			names = append(names, fmt.Sprintf("h%d.example.com", k))
		} else {
			names = append(names, fmt.Sprintf("h%d-%d.example.com", i, k))
		}
	}
	var all []gatewayv1.HTTPRouteRule
	for rule := range s[rules] {
		all = append(all, s.rule(i, rule))
	}
	c.add(names, all...)
}

func (s shape) rule(route, n int) (rule gatewayv1.HTTPRouteRule) {
	for m := range s[matches] {
		rule.Matches = append(rule.Matches, s.match(fmt.Sprintf("/%d/%d/%d/", route, n, m)))
	}
	rule.Filters = s.filter(s[responseHeaders], gatewayv1.HTTPRouteFilterResponseHeaderModifier)
	if s[change] == 2 {
		rule.Filters = append(rule.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestRedirect,
			RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Path: &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: ptr("/" + strings.Repeat("r", s[pathLength]))}}})
		return rule
	}
	rule.Filters = append(rule.Filters, s.filter(s[requestHeaders], gatewayv1.HTTPRouteFilterRequestHeaderModifier)...)
	if s[change] == 1 {
		rule.Filters = append(rule.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite,
			URLRewrite: &gatewayv1.HTTPURLRewriteFilter{Path: &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: ptr("/" + strings.Repeat("r", s[pathLength]))}}})
	}
	for k := range s[mirrors] {
		rule.Filters = append(rule.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestMirror,
			RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: backendRef((route + k + 2000) % 2000).BackendObjectReference}})
	}
	if s[timeouts] < 2 {
		rule.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: ptr(gatewayv1.Duration("30s"))}
		if s[timeouts] == 0 {
			rule.Timeouts.BackendRequest = ptr(gatewayv1.Duration("10s"))
		}
	}
	for k := range s[backends] {
		ref := backendRef((route*16 + n*3 + k + 2000) % 2000)
		ref.Filters = s.filter(s[backendHeaders], gatewayv1.HTTPRouteFilterRequestHeaderModifier)
		rule.BackendRefs = append(rule.BackendRefs, ref)
	}
	return rule
}

func (s shape) match(path string) (m gatewayv1.HTTPRouteMatch) {
	m.Path = &gatewayv1.HTTPPathMatch{Value: ptr(path + strings.Repeat("p", s[pathLength]))}
	switch s[pathKind] {
	case 1:
		m.Path.Type = ptr(gatewayv1.PathMatchExact)
	case 2, 3:
		m.Path.Type = ptr(gatewayv1.PathMatchRegularExpression)
		m.Path.Value = ptr(path + fmt.Sprintf("[a-z0-9-]{1,%d}", s[pathLength]/8+1))
		if s[pathKind] == 3 {
			m.Path.Value = ptr(path + fmt.Sprintf(".*(foo|ba.)[^/]{%d}", s[pathLength]/200+1))
		}
	}
	for k := range s[headerMatches] {
		m.Headers = append(m.Headers, gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(fmt.Sprint("x-", k)), Value: "v" + strings.Repeat("v", s[valueLength])})
	}
	for k := range s[queryMatches] {
		m.QueryParams = append(m.QueryParams, gatewayv1.HTTPQueryParamMatch{Name: gatewayv1.HTTPHeaderName(fmt.Sprint("q", k)), Value: "v" + strings.Repeat("v", s[valueLength]/4)})
	}
	if s[method] == 1 {
		m.Method = ptr(gatewayv1.HTTPMethodGet)
	}
	return m
}

// filled are routes of a shape, as many as a namespace may have, and a few that are refused.
func (s shape) filled(t *testing.T) (x *costly, p lbsync.Program) {
	x = newCostlyWith(t, s[gateways], s[ports])
	if s[wide] > 0 {
		var all []gatewayv1.HTTPRouteRule
		for rule := range s[wide] {
			all = append(all, s.rule(-1, rule))
		}
		x.add([]string{"*.example.com"}, all...)
	}
	for _, many := range []int{2, 12, 100, 400, 1300, 4500} {
		for i := len(x.in.Routes); i <= many; i++ {
			s.add(x, i)
		}
		var accepted int
		if p, accepted = x.program(t); accepted < len(x.in.Routes) {
			break
		}
	}
	return x, p
}

// score is what a program costs by a count of what Envoy gets, which knows nothing of budgets.
func score(t *testing.T, p lbsync.Program) int {
	r := envoy.Translate(p)
	size, routes := 0, 0
	for _, list := range [][]envoy.Resource{r.Clusters, r.Routes} {
		for _, one := range list {
			size += len(one.Body.GetValue())
		}
	}
	for _, one := range r.Routes {
		var config routev3.RouteConfiguration
		if err := one.Body.UnmarshalTo(&config); err != nil {
			t.Fatal(err)
		}
		for _, host := range config.GetVirtualHosts() {
			routes += len(host.GetRoutes())
		}
	}
	return 38_000*len(r.Clusters) + 4_000*routes + 4*size
}

// A search for the dearest routes that one namespace may have accepted: it changes the shape of routes, fills a namespace
// with them, and goes on from the shapes that cost most. An Envoy that gets the dearest ones grows by at most 64 MB.
func TestDearestRoutes(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an Envoy: run without -short")
	}
	type found struct {
		shape shape
		score int
	}
	r := rand.New(rand.NewPCG(*searchSeed, 0))
	var best []found
	for n := range *searchRounds {
		var next shape
		if n >= 12 {
			next = best[r.IntN(len(best))].shape
		}
		for range 1 + 6*max(0, 12-n)/12 {
			next = next.mutated(r)
		}
		if slices.ContainsFunc(best, func(f found) bool { return f.shape == next }) {
			continue
		}
		_, p := next.filled(t)
		best = append(best, found{next, score(t, p)})
		slices.SortFunc(best, func(x, y found) int { return y.score - x.score })
		best = best[:min(len(best), 6)]
	}
	for _, f := range best[:min(len(best), 3)] {
		x, p := f.shape.filled(t)
		e := load(t, p)
		grown := e.resident() - e.before
		t.Logf("shape %v, %d assignments of %d routes: score %.1f MB, resident %.1f MB", f.shape, len(p.Assignments), len(x.in.Routes), float64(f.score)/1e6, float64(grown)/1e6)
		if grown > 64<<20 {
			t.Errorf("the edge has grown by %.1f MB", float64(grown)/1e6)
		}
		_ = e.process.Kill()
	}
}
