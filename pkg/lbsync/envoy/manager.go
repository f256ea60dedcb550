package envoy

import (
	"cmp"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// What a client may take, in time and in memory. Each state that a connection may stay in has a limit: before TLS begins,
// in its handshake, without a request, in the headers of a request, in its body, and idle within a request. Values that
// Envoy would use anyway are written down here, because the edge relies on them.
// (https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge)
const (
	listenerFiltersTimeout = 5 * time.Second  // until the first bytes of TLS, and the PROXY header, have come
	handshakeTimeout       = 10 * time.Second // of TLS
	headersTimeout         = 10 * time.Second // from the first byte of a request to the end of its headers
	bodyTimeout            = 5 * time.Minute  // for the whole request to arrive, not for its answer
	// streamIdleTimeout is how long a request, or a WebSocket, may be idle unless its rule allows more.
	streamIdleTimeout = 5 * time.Minute
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

// connectionManager returns the connection manager of a chain, hardened as Envoy's guide for edges says. Routes are never
// inside the Listener, because open connections would keep the old ones.
func connectionManager(l lbsync.Listener, c model.Chain) *hcmv3.HttpConnectionManager {
	out := &hcmv3.HttpConnectionManager{
		StatPrefix:     strings.ReplaceAll(routesName(l, c), "/", "."),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: adsSource(), RouteConfigName: routesName(l, c)}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: routerFilter}}},
		AccessLog: accessLogs(),
		// The client is the peer of the connection, or who the trusted proxies in front say that it is. Nobody is internal.
		UseRemoteAddress: enabled(), XffNumTrustedHops: l.Clients.TrustedHops,
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		NormalizePath:         enabled(), MergeSlashes: true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,
		StripTrailingHostDot:         true,
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(cmp.Or(l.Clients.IdleTimeout, connectionIdleTimeout)),
			MaxHeadersCount:              number(maxHeaders),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST},
		Http2ProtocolOptions:  http2Limits(),
		MaxRequestHeadersKb:   number(maxHeaderKiB),
		RequestHeadersTimeout: durationpb.New(headersTimeout),
		RequestTimeout:        durationpb.New(bodyTimeout),
		StreamIdleTimeout:     durationpb.New(streamIdleTimeout),
		UpgradeConfigs:        []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	}
	if l.Clients.TrustedHops == 0 {
		out.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{{Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: untrustedHeaders}}
	}
	return out
}

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

// proxyHeaders are the headers by which proxies tell backends what a request was like when it reached them. A client that
// is not a trusted proxy has no say in them. Envoy itself writes x-forwarded-for, x-forwarded-proto, x-request-id and
// x-envoy-*, and removes x-forwarded-client-cert.
var proxyHeaders = []string{"forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
	"x-forwarded-prefix", "x-original-host", "x-original-url", "x-rewrite-url"}

// withoutProxyHeaders removes proxyHeaders before a route is chosen, so the filters of routes may set them.
func withoutProxyHeaders() *earlyv3.HeaderMutation {
	out := &earlyv3.HeaderMutation{}
	for _, name := range proxyHeaders {
		out.Mutations = append(out.Mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	return out
}
