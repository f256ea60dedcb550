package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/gateway/model"
)

// planFilters reads the filters of a rule into its plan and returns the first
// problem, or "". An unsupported filter is a problem: it is never skipped.
func planFilters(namespace string, rule *gatewayv1.HTTPRouteRule, plan *rulePlan) string {
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i := range rule.Filters {
		filter := &rule.Filters[i]
		if seen[filter.Type] && filter.Type != gatewayv1.HTTPRouteFilterRequestMirror {
			return fmt.Sprintf("filters[%d]: filter %s is there twice; merge the two", i, filter.Type)
		}
		seen[filter.Type] = true
		if problem := planFilter(namespace, filter, plan); problem != "" {
			return fmt.Sprintf("filters[%d]: %s", i, problem)
		}
	}
	if plan.base.Redirect == nil {
		return ""
	}
	for _, other := range []gatewayv1.HTTPRouteFilterType{gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterRequestMirror} {
		if seen[other] {
			plan.incompatible = true
			return fmt.Sprintf("filters RequestRedirect and %s exclude each other, because a redirect forwards nothing; remove one", other)
		}
	}
	// These may stand beside a redirect (apis/v1 HTTPRouteFilter) and have no effect there.
	plan.base.Request, plan.base.Timeout, plan.base.BackendTimeout = model.HeaderChanges{}, nil, nil
	return ""
}

func planFilter(namespace string, filter *gatewayv1.HTTPRouteFilter, plan *rulePlan) (problem string) {
	switch {
	case filter.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && filter.RequestHeaderModifier != nil:
		plan.base.Request, problem = planHeaders(filter.RequestHeaderModifier, requestHeaderProblem)
	case filter.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && filter.ResponseHeaderModifier != nil:
		plan.base.Response, problem = planHeaders(filter.ResponseHeaderModifier, headerProblem)
	case filter.Type == gatewayv1.HTTPRouteFilterRequestRedirect && filter.RequestRedirect != nil:
		plan.base.Redirect, problem = planRedirect(filter.RequestRedirect, plan.matches)
	case filter.Type == gatewayv1.HTTPRouteFilterURLRewrite && filter.URLRewrite != nil:
		plan.base.Rewrite, problem = planRewrite(filter.URLRewrite, plan.matches)
	case filter.Type == gatewayv1.HTTPRouteFilterRequestMirror && filter.RequestMirror != nil:
		problem = planMirror(namespace, filter.RequestMirror, plan)
	default:
		return unusableFilter(filter.Type, filtersOfRules)
	}
	return problem
}

var (
	filtersOfBackends = []gatewayv1.HTTPRouteFilterType{gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier}
	filtersOfRules    = append(slices.Clip(filtersOfBackends), gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite)
)

// unusableFilter says why a filter is not one of the supported ones.
func unusableFilter(kind gatewayv1.HTTPRouteFilterType, supported []gatewayv1.HTTPRouteFilterType) string {
	if slices.Contains(supported, kind) {
		return fmt.Sprintf("filter %s has no content; give it some, or remove it", kind)
	}
	return fmt.Sprintf("filter %q is not supported here; remove it (supported: %v)", kind, supported)
}

// planBackendFilters reads the filters of a backendRef: only header modifiers.
func planBackendFilters(filters []gatewayv1.HTTPRouteFilter, backend *backendPlan) (problem string) {
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i := range filters {
		filter := &filters[i]
		switch {
		case seen[filter.Type]:
			problem = fmt.Sprintf("filter %s is there twice; merge the two", filter.Type)
		case filter.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && filter.RequestHeaderModifier != nil:
			backend.request, problem = planHeaders(filter.RequestHeaderModifier, requestHeaderProblem)
		case filter.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && filter.ResponseHeaderModifier != nil:
			backend.response, problem = planHeaders(filter.ResponseHeaderModifier, headerProblem)
		default:
			problem = unusableFilter(filter.Type, filtersOfBackends)
		}
		if problem != "" {
			return fmt.Sprintf("filters[%d]: %s", i, problem)
		}
		seen[filter.Type] = true
	}
	return ""
}

func planHeaders(filter *gatewayv1.HTTPHeaderFilter, problemOf func(name string) string) (changes model.HeaderChanges, problem string) {
	if changes.Set, problem = planHeaderList("set", filter.Set, problemOf); problem != "" {
		return changes, problem
	}
	if changes.Add, problem = planHeaderList("add", filter.Add, problemOf); problem != "" {
		return changes, problem
	}
	for _, given := range filter.Remove {
		name := strings.ToLower(given)
		if problem := problemOf(name); problem != "" {
			return changes, "remove: " + problem
		}
		changes.Remove = append(changes.Remove, name)
	}
	return changes, ""
}

func planHeaderList(field string, given []gatewayv1.HTTPHeader, problemOf func(name string) string) ([]model.Header, string) {
	var headers []model.Header
	for i := range given {
		header := model.Header{Name: strings.ToLower(string(given[i].Name)), Value: given[i].Value}
		if problem := problemOf(header.Name); problem != "" {
			return nil, field + ": " + problem
		}
		if !httpguts.ValidHeaderFieldValue(header.Value) || len(header.Value) > 4096 {
			return nil, fmt.Sprintf("%s: the value of header %q has control characters or more than 4096 bytes", field, header.Name)
		}
		// Of several names that differ only by case, the first counts (apis/v1 HTTPHeader).
		if !slices.ContainsFunc(headers, func(h model.Header) bool { return h.Name == header.Name }) {
			headers = append(headers, header)
		}
	}
	return headers, ""
}

var redirectCodes = []int{301, 302, 303, 307, 308} // RFC 9110 section 15.4

func planRedirect(filter *gatewayv1.HTTPRequestRedirectFilter, matches []matchPlan) (*model.Redirect, string) {
	redirect := &model.Redirect{
		Scheme: ptr.Deref(filter.Scheme, ""), Hostname: strings.ToLower(string(ptr.Deref(filter.Hostname, ""))), StatusCode: 302,
	}
	if redirect.Scheme != "" && redirect.Scheme != "http" && redirect.Scheme != "https" {
		return nil, fmt.Sprintf("scheme %q is not supported; use http or https", shortened(redirect.Scheme))
	}
	if filter.Hostname != nil && !validPreciseHostname(redirect.Hostname) {
		return nil, fmt.Sprintf("hostname %q is not a DNS name", shortened(redirect.Hostname))
	}
	if filter.Port != nil {
		if *filter.Port < 1 || *filter.Port > 65535 {
			return nil, fmt.Sprintf("port %d is not within 1 and 65535", *filter.Port)
		}
		redirect.Port = uint16(*filter.Port)
	}
	if filter.StatusCode != nil {
		redirect.StatusCode = *filter.StatusCode
	}
	if !slices.Contains(redirectCodes, redirect.StatusCode) {
		return nil, fmt.Sprintf("status code %d is not supported; use 301, 302, 303, 307 or 308", redirect.StatusCode)
	}
	var problem string
	redirect.Path, problem = planPathChange(filter.Path, matches)
	return redirect, problem
}

func planRewrite(filter *gatewayv1.HTTPURLRewriteFilter, matches []matchPlan) (*model.Rewrite, string) {
	rewrite := &model.Rewrite{Hostname: strings.ToLower(string(ptr.Deref(filter.Hostname, "")))}
	if filter.Hostname != nil && !validPreciseHostname(rewrite.Hostname) {
		return nil, fmt.Sprintf("hostname %q is not a DNS name", shortened(rewrite.Hostname))
	}
	var problem string
	rewrite.Path, problem = planPathChange(filter.Path, matches)
	return rewrite, problem
}

func planPathChange(modifier *gatewayv1.HTTPPathModifier, matches []matchPlan) (*model.PathChange, string) {
	if modifier == nil {
		return nil, ""
	}
	change := &model.PathChange{}
	switch {
	case modifier.Type == gatewayv1.FullPathHTTPPathModifier && modifier.ReplaceFullPath != nil:
		full := cmp.Or(*modifier.ReplaceFullPath, "/") // a path is never empty
		change.Full = &full
	case modifier.Type == gatewayv1.PrefixMatchHTTPPathModifier && modifier.ReplacePrefixMatch != nil:
		if slices.ContainsFunc(matches, func(m matchPlan) bool { return m.match.Path.Kind != model.PathPrefix }) {
			return nil, "path ReplacePrefixMatch needs matches of type PathPrefix; use ReplaceFullPath, or change the matches"
		}
		prefix := *modifier.ReplacePrefixMatch
		change.Prefix = &prefix
	default:
		return nil, fmt.Sprintf("path modifier %q is not supported or has no content; use ReplaceFullPath or ReplacePrefixMatch", modifier.Type)
	}
	for _, path := range []*string{change.Full, change.Prefix} {
		if path != nil && (!isVisible(*path) || strings.ContainsAny(*path, "?#") || len(*path) > 1024 || *path != "" && (*path)[0] != '/') {
			return nil, fmt.Sprintf("path %q cannot be sent; begin it with /, leave out ?, # and blanks, and write other than ASCII as %%XX", shortened(*path))
		}
	}
	return change, ""
}

func planMirror(namespace string, filter *gatewayv1.HTTPRequestMirrorFilter, plan *rulePlan) string {
	mirror := mirrorPlan{ref: referenceTo(namespace, &filter.BackendRef), numerator: 100, denominator: 100}
	if filter.Percent != nil && filter.Fraction != nil {
		return "percent and fraction cannot be combined; remove one"
	}
	if filter.Percent != nil {
		if *filter.Percent < 0 || *filter.Percent > 100 {
			return fmt.Sprintf("percent %d is not within 0 and 100", *filter.Percent)
		}
		mirror.numerator = uint32(*filter.Percent)
	}
	if filter.Fraction != nil {
		numerator, denominator := filter.Fraction.Numerator, int32(100)
		if filter.Fraction.Denominator != nil {
			denominator = *filter.Fraction.Denominator
		}
		if denominator < 1 || numerator < 0 || numerator > denominator {
			return fmt.Sprintf("fraction %d/%d is not within 0 and 1", numerator, denominator)
		}
		mirror.numerator, mirror.denominator = uint32(numerator), uint32(denominator)
	}
	plan.mirrors = append(plan.mirrors, mirror)
	return ""
}
