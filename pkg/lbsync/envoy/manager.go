package envoy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// What a client may take, in time and in memory. Each state that a connection may stay in has a limit: before TLS begins,
// in its handshake, without a request, in the headers of a request, and idle within a request. A request whose body or
// answer goes on has none. Values that Envoy would use anyway are written down here, because the edge relies on them.
// (https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge)
const (
	listenerFiltersTimeout = 5 * time.Second  // until the first bytes of TLS, and the PROXY header, have come
	handshakeTimeout       = 10 * time.Second // of TLS
	headersTimeout         = 10 * time.Second // from the first byte of a request to the end of its headers
	// streamIdleTimeout is how long a request, or a WebSocket, may be idle in both directions unless its rule allows more.
	// Streams of events, watches of gRPC and reports that take minutes are silent and well. Keepalive finds peers that vanished.
	streamIdleTimeout = time.Hour
	// connectionIdleTimeout is how long a connection may be open without a request, unless the Gateway's parameters say otherwise.
	connectionIdleTimeout = time.Minute

	maxHeaderKiB     = 32 // of all headers of a request
	maxHeaders       = 100
	maxStreams       = 100         // at a time in one HTTP/2 connection
	streamWindow     = 64 * 1024   // bytes of one request's body that wait in an edge
	connectionWindow = 1024 * 1024 // the same, of all requests of an HTTP/2 connection

	// A client that does not read its answers makes frames wait in the edge. With more, it is disconnected.
	maxWaitingFrames        = 10_000
	maxWaitingControlFrames = 1_000 // PING, SETTINGS and RST_STREAM
	maxEmptyFrames          = 1     // in a row, of HEADERS, CONTINUATION and DATA
	maxPriorityFrames       = 100   // for each stream
	maxWindowUpdates        = 10    // for each DATA frame sent
)

// clientKeepalive finds clients that vanished while their WebSocket or their request was idle.
var clientKeepalive = &corev3.TcpKeepalive{KeepaliveTime: number(60), KeepaliveInterval: number(15), KeepaliveProbes: number(4)}

// connectionManager returns the connection manager of a chain, hardened as Envoy's guide for edges says where ordinary
// clients survive that. Routes are never inside the Listener, because open connections would keep the old ones.
func connectionManager(l lbsync.Listener, c model.Chain) *hcmv3.HttpConnectionManager {
	filters := append(slices.Clip(slashFilters), retryIdempotentFilter, &hcmv3.HttpFilter{Name: "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: routerFilter}})
	return &hcmv3.HttpConnectionManager{
		StatPrefix:         strings.ReplaceAll(routesName(l, c), "/", "."),
		RouteSpecifier:     &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: adsSource(), RouteConfigName: routesName(l, c)}},
		HttpFilters:        filters,
		AccessLog:          accessLogs(),
		RequestIdExtension: requestID(),
		// The client is the peer of the connection, or who the trusted proxies in front say that it is. Nobody is internal.
		UseRemoteAddress: enabled(), XffNumTrustedHops: l.Clients.TrustedHops,
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		NormalizePath:         enabled(), MergeSlashes: l.Clients.MergeSlashes,
		PathWithEscapedSlashesAction: escapedSlashes[l.Clients.EscapedSlashes],
		PreserveExternalRequestId:    !l.Clients.OwnRequestIDs,
		StripTrailingHostDot:         true,
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(cmp.Or(l.Clients.IdleTimeout, connectionIdleTimeout)),
			MaxHeadersCount:              number(cmp.Or(l.Clients.MaxHeaders, maxHeaders)),
			HeadersWithUnderscoresAction: underscores[l.Clients.Underscores]},
		HttpProtocolOptions:           http1Options(l, c),
		Http2ProtocolOptions:          http2Limits(),
		MaxRequestHeadersKb:           number(cmp.Or(l.Clients.MaxHeaderKiB, maxHeaderKiB)),
		RequestHeadersTimeout:         durationpb.New(headersTimeout),
		StreamIdleTimeout:             durationpb.New(streamIdleTimeout),
		LocalReplyConfig:              unavailable,
		UpgradeConfigs:                []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: websocket, Filters: slices.Insert(slices.Clone(filters), 0, unlimitedFilter)}},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{{Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: removals(l)}},
	}
}

var underscores = map[model.Underscores]corev3.HttpProtocolOptions_HeadersWithUnderscoresAction{
	model.AllowUnderscores:  corev3.HttpProtocolOptions_ALLOW,
	model.DropUnderscores:   corev3.HttpProtocolOptions_DROP_HEADER,
	model.RefuseUnderscores: corev3.HttpProtocolOptions_REJECT_REQUEST,
}

var escapedSlashes = map[model.EscapedSlashes]hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction{
	model.KeepEscapedSlashes:     hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
	model.RedirectEscapedSlashes: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,
	model.UnescapeSlashes:        hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD,
	model.RefuseEscapedSlashes:   hcmv3.HttpConnectionManager_REJECT_REQUEST,
}

func removals(l lbsync.Listener) *anypb.Any {
	if l.Clients.TrustedHops > 0 {
		return trustedHeaders
	}
	return untrustedHeaders
}

const websocket = "websocket" // the only protocol to which clients may upgrade

// http1Options let clients of HTTP/1.0 and those that offer upgrades pass. A server may ignore an offer (RFC 9110 section
// 7.8), and some clients always make one: Apache HttpClient 5.4 offers TLS/1.2.
func http1Options(l lbsync.Listener, c model.Chain) *corev3.Http1ProtocolOptions {
	out := &corev3.Http1ProtocolOptions{IgnoreHttp_11Upgrade: otherUpgrades}
	if !l.Clients.RefuseHTTP10 {
		out.AcceptHttp_10, out.DefaultHostForHttp_10 = true, defaultHost(l, c)
	}
	return out
}

// defaultHost is the host of a request of HTTP/1.0 that has none. An address is no hostname, so it selects the rules of
// routes without hostnames.
func defaultHost(l lbsync.Listener, c model.Chain) string {
	switch {
	case l.Clients.HTTP10Host != "":
		return l.Clients.HTTP10Host
	case c.ServerName != "" && !strings.HasPrefix(c.ServerName, "*"):
		return c.ServerName
	case l.Address.Is6():
		return "[" + l.Address.String() + "]"
	default:
		return l.Address.String()
	}
}

// otherUpgrades matches all protocols but websocket, in any case. RE2 cannot say "not", so this says at which letter a name
// differs.
var otherUpgrades = func() (matchers []*matcherv3.StringMatcher) {
	var patterns []string
	for at := range len(websocket) {
		patterns = append(patterns, websocket[:at]+"(?:[^"+websocket[at:at+1]+"].*)?")
	}
	pattern := "(?i:" + strings.Join(patterns, "|") + "|" + websocket + ".+)"
	return []*matcherv3.StringMatcher{{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(pattern)}}}
}()

// unavailable answers 503 where Envoy would answer 507: more of a body came than is kept while its next try was waited for.
var unavailable = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{StatusCode: number(503),
	Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{Op: accesslogv3.ComparisonFilter_EQ,
			Value: &corev3.RuntimeUInt32{DefaultValue: 507, RuntimeKey: "crossway.insufficient_storage"}}}}}}}}

// unlimitedFilter lifts the limit of an upgrade that protocol sets: it ends with the answer to the upgrade (handshakeLimit).
var unlimitedFilter = &hcmv3.HttpFilter{Name: "envoy.filters.http.header_mutation", ConfigType: &hcmv3.HttpFilter_TypedConfig{
	TypedConfig: packed(&headerv3.HeaderMutation{Mutations: &headerv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			Header: &corev3.HeaderValue{Key: "x-envoy-upstream-stream-duration-ms", Value: "0"}}}}}}})}}

func http2Limits() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:    number(maxStreams),
		InitialStreamWindowSize: number(streamWindow), InitialConnectionWindowSize: number(connectionWindow),
		MaxOutboundFrames: number(maxWaitingFrames), MaxOutboundControlFrames: number(maxWaitingControlFrames),
		MaxConsecutiveInboundFramesWithEmptyPayload:  number(maxEmptyFrames),
		MaxInboundPriorityFramesPerStream:            number(maxPriorityFrames),
		MaxInboundWindowUpdateFramesPerDataFrameSent: number(maxWindowUpdates),
	}
}
