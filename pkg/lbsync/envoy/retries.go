package envoy

import (
	"fmt"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	skipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	inputv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/gateway/model"
)

const (
	// retryUnsent repeats a request that no backend can have seen, retryReset one that failed before an answer came.
	retryUnsent = "connect-failure,refused-stream,reset-before-request"
	retryReset  = "reset"
	// maxRetries and the delays before them last long enough for a few dead endpoints to be ejected, or for the hub to
	// move their share away, before the request fails. This holds for a lone request too, all of whose endpoints are dead.
	// Delays are random, up to a limit that doubles: 3.6 s in total on average, and 1.4 s more for each connection that
	// is not even refused.
	maxRetries    = 9
	minRetryDelay = 25 * time.Millisecond
	maxRetryDelay = 2 * time.Second
	// maxSends is how often a request is sent. One that crashes whoever reads it reaches no more endpoints.
	maxSends = 3
	// maxRetriesWithTimeout applies where each try has a time limit: a slow backend must not be asked many times more.
	maxRetriesWithTimeout = maxSends - 1
	// hostSelectionAttempts is how many hosts Envoy picks to find one that it has not tried yet.
	hostSelectionAttempts = 100
)

// retries is the retry policy of all requests to an assignment: what no backend can have seen is repeated. retryIdempotent
// adds what may be repeated although a backend may have seen it. Mirrored requests lack its header.
//
// The cluster has the policy, which Envoy reads since 1.36 and prefers to a route's. In each virtual host it would cost every
// edge more than all else that is built again of a host when any route of its port changes.
// (docs/adr/0011-one-routeconfiguration-per-chain.md)
func retries(a model.Assignment) *routev3.RetryPolicy {
	number := uint32(maxRetries)
	if a.Timeout > 0 {
		number = maxRetriesWithTimeout
	}
	return &routev3.RetryPolicy{
		RetryOn:    retryUnsent,
		NumRetries: wrapperspb.UInt32(number),
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(minRetryDelay), MaxInterval: durationpb.New(maxRetryDelay)}, // random, doubled from one retry to the next
		HostSelectionRetryMaxAttempts: hostSelectionAttempts,
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previousHosts}}},
		// What was tried in a locality with a share is tried next in a later one: in another member.
		RetryPriority: &routev3.RetryPolicy_RetryPriority{Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: previousPriorities}},
	}
}

// handshakeLimit is the limit on each try of a rule for the answer to an upgrade, which protocol does not limit; nil: none.
// Envoy takes this field of a retry policy from the route, and all others from the cluster.
func handshakeLimit(rule model.Rule) *routev3.RetryPolicy {
	if rule.BackendTimeout == nil || *rule.BackendTimeout <= 0 {
		return nil
	}
	return &routev3.RetryPolicy{PerTryTimeout: durationpb.New(*rule.BackendTimeout)}
}

// RetryFilter is the name of the HTTP filter retryIdempotent.
const RetryFilter = "retry-idempotent"

// retryIdempotent is an HTTP filter that makes Envoy repeat idempotent methods (RFC 9110 section 9.2.2; TRACE is not worth it)
// although the first try may have reached the backend. Envoy's router adds what the header says to the retry policy, and
// removes the header. A CEL expression as the header's value would cost a request twice what the filter costs it. Two routes
// for each rule, one of them for these methods, would cost every edge twice the time and the memory.
// (docs/performance.md, docs/adr/0011-one-routeconfiguration-per-chain.md)
func retryIdempotent() *hcmv3.HttpFilter {
	adding := &headerv3.HeaderMutation{Mutations: &headerv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			Header: &corev3.HeaderValue{Key: "x-envoy-retry-on", Value: retryReset}}}}}}}
	repeated := &matcherv3.Matcher_MatcherList_Predicate_PredicateList{}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"} {
		repeated.Predicate = append(repeated.Predicate, headerIs(":method", method))
	}
	return unless(RetryFilter, adding, &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_NotMatcher{
		NotMatcher: &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_OrMatcher{OrMatcher: repeated}}}})
}

// unless is an HTTP filter that changes headers of requests to which a condition does not apply.
func unless(name string, changes *headerv3.HeaderMutation, condition *matcherv3.Matcher_MatcherList_Predicate) *hcmv3.HttpFilter {
	skip := &xdscorev3.TypedExtensionConfig{Name: "skip", TypedConfig: packed(&skipv3.SkipFilter{})}
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&matchingv3.ExtensionWithMatcher{
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: "envoy.filters.http.header_mutation", TypedConfig: packed(changes)},
		XdsMatcher: &matcherv3.Matcher{MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{
			Matchers: []*matcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: condition,
				OnMatch:   &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{Action: skip}},
			}}}}},
	})}}
}

// headerIs is the condition that a header of the request has a value.
func headerIs(name, value string) *matcherv3.Matcher_MatcherList_Predicate {
	return &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscorev3.TypedExtensionConfig{Name: "header", TypedConfig: packed(&inputv3.HttpRequestHeaderMatchInput{HeaderName: name})},
			Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}}}}}
}

const (
	attemptHeader = "x-envoy-attempt-count"
	// bytesHeader is how many bytes all earlier tries of a request have sent.
	bytesHeader = "x-crossway-bytes"
	// sendsHeader lists the values of bytesHeader, each once and without 0: one for each earlier try that was sent.
	sendsHeader = "x-crossway-sends"
	// stopHeader is no header name. Envoy answers 503 for a request that has it, instead of sending the request.
	stopHeader = "sent too often"
)

// repeatableBody is how many bytes of a body an edge keeps for the next try until the answer begins. A request with more is
// not repeated once more has come.
const repeatableBody = 256 * 1024

// virtualHostDefaults are the fields that every virtual host has: Envoy sets attemptHeader, and keeps bodies.
var virtualHostDefaults = packed(&routev3.VirtualHost{IncludeRequestAttemptCount: true, RequestBodyBufferLimit: wrapperspb.UInt64(repeatableBody)}).GetValue()

// sendLimitFilters are HTTP filters that see every try of a request. They end it after maxSends tries that were sent, in
// whatever localities: while all members roll to a new version, each of them resets some. Envoy itself has one number of
// retries for all reasons. A try whose connection could not be made sends no byte, so the sum of the bytes that were sent
// tells the others (measured with Envoy 1.40, docs/adr/0010-count-of-sent-tries.md). The first try skips the filter.
func sendLimitFilters() []*hcmv3.HttpFilter {
	set := func(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			AppendAction: action, Header: &corev3.HeaderValue{Key: name, Value: value}}}}
	}
	bytes, sends := fmt.Sprintf("request.headers['%s']", bytesHeader), fmt.Sprintf("request.headers['%s']", sendsHeader)
	anySends := fmt.Sprintf("'%s' in request.headers", sendsHeader)
	counting := &headerv3.HeaderMutation{Mutations: &headerv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		set(bytesHeader, "%UPSTREAM_WIRE_BYTES_SENT%", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
		// The sum grows, so it ends the list only if it was the last to be added. An empty value is not added.
		set(sendsHeader, fmt.Sprintf("%%CEL(%[1]s == '0' || %[2]s && %[3]s.endsWith(%[1]s) ? '' : %[1]s)%%", bytes, anySends, sends),
			corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD),
		set(stopHeader, fmt.Sprintf("%%CEL(%s && %s.matches('%s') ? 'x' : '')%%", anySends, sends, strings.Repeat(",.*", maxSends-1)),
			corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
	}}}
	return []*hcmv3.HttpFilter{
		unless("envoy.filters.http.match_delegate", counting, headerIs(attemptHeader, "1")),
		{Name: "envoy.filters.http.upstream_codec", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&codecv3.UpstreamCodec{})}},
	}
}
