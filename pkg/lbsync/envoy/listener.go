package envoy

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// missingCluster names a cluster that never exists. Envoy closes a connection that is sent there at once.
const missingCluster = "crossway/nowhere"

// listener adds one port of one Gateway: its Listener, and a RouteConfiguration for each chain. While a Listener stays at
// its address, only its chains ever change: a change of any other field would drain all of its connections.
func (t *translator) listener(l lbsync.Listener) {
	scoped := make([]bool, len(l.Chains)) // by chain: scopable
	for i, c := range l.Chains {
		scoped[i] = scopable(c)
	}
	t.out.Append(t.cache.listener(l, scoped))
	for i, c := range l.Chains {
		switch {
		case rejects(l, c), c.TCP != nil:
		case scoped[i]:
			t.scopedRoutes(l, c)
		default:
			t.routes(l, c)
		}
	}
}

// withoutRoutes adds the Listener alone. It does not depend on the rules of its hosts.
func (t *translator) withoutRoutes(l lbsync.Listener, scoped []bool) {
	name := ListenerName(&l.Listener)
	out := &listenerv3.Listener{
		Name:                          name,
		Address:                       socket(l.Address, uint32(l.Port)),
		Freebind:                      enabled(), // before the edge has the address, and once it has it
		EnableReusePort:               enabled(), // several edges share the addresses of a pool
		PerConnectionBufferLimitBytes: number(bufferLimit),
	}
	if l.Protocol == model.HTTPS || l.Protocol == model.TLS {
		out.ListenerFilters = []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: tlsInspector},
		}}
	}
	for i, c := range l.Chains {
		chain := chain(l, c, scoped[i])
		if err := validate(chain); err != nil {
			t.out.Faults = append(t.out.Faults, Fault{TypeURL: resourcev3.ListenerType, Name: name, Part: c.Name, Message: err.Error()})
			chain.Filters, chain.TransportSocket = []*listenerv3.Filter{reject()}, nil
		}
		out.FilterChains = append(out.FilterChains, chain)
	}
	t.add(&t.out.Listeners, name, out, listenerSources(l))
}

// ListenerName names the resource of a listener; the names of its RouteConfigurations and scopes begin with it.
func ListenerName(l *model.Listener) string {
	return l.Gateway.String() + "/" + strconv.Itoa(int(l.Port))
}

// routesName names the RouteConfiguration of a chain.
func routesName(l lbsync.Listener, c model.Chain) string {
	if l.Protocol == model.HTTP {
		return ListenerName(&l.Listener)
	}
	return ListenerName(&l.Listener) + "/" + c.Name
}

func socket(address netip.Addr, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}

// rejects reports whether a chain closes every connection.
func rejects(l lbsync.Listener, c model.Chain) bool {
	return c.Reject || l.Protocol == model.HTTPS && len(c.Secrets) == 0
}

func chain(l lbsync.Listener, c model.Chain, scoped bool) *listenerv3.FilterChain {
	out := &listenerv3.FilterChain{Name: c.Name}
	if c.ServerName != "" {
		out.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: []string{c.ServerName}}
	}
	if rejects(l, c) {
		out.Filters = []*listenerv3.Filter{reject()}
		return out
	}
	if c.TCP != nil {
		forwardTCP(out, l, c)
		return out
	}
	manager := connectionManager(l, c)
	if scoped {
		useScopedRoutes(manager, routesName(l, c))
	} else {
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: adsSource(), RouteConfigName: routesName(l, c)}}
	}
	if l.Protocol == model.HTTPS {
		out.TransportSocket = &corev3.TransportSocket{Name: "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(downstreamTLS(c))}}
	}
	out.Filters = []*listenerv3.Filter{{Name: "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)}}}
	return out
}

// reject returns a filter that closes every connection. The server name of a broken listener must not fall through into
// a wider chain.
func reject() *listenerv3.Filter {
	return &listenerv3.Filter{Name: "envoy.filters.network.tcp_proxy",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: rejectingProxy}}
}

func downstreamTLS(c model.Chain) *tlsv3.DownstreamTlsContext {
	common := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
		AlpnProtocols: []string{"h2", "http/1.1"},
	}
	for _, name := range c.Secrets {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs,
			&tlsv3.SdsSecretConfig{Name: name, SdsConfig: adsSource()})
	}
	return &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
}

// secret is a certificate with its key. It is a resource of its own, so that a new certificate disturbs no connection.
func secret(s model.Secret) *tlsv3.Secret {
	inline := func(content []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: content}}
	}
	return &tlsv3.Secret{Name: s.Name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(s.Certificate), PrivateKey: inline(s.PrivateKey)}}}
}

// streamIdleTimeout is how long a request may be idle unless its rule allows more. The value is from Envoy's guide for
// edges.
const streamIdleTimeout = 5 * time.Minute

// connectionManager returns a connection manager without routes, hardened as Envoy's guide "Configuring Envoy as an edge
// proxy" says.
func connectionManager(l lbsync.Listener, c model.Chain) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: strings.ReplaceAll(routesName(l, c), "/", "."),
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: routerFilter}}},
		AccessLog: []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.stdout",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: stdoutLog}}},
		// The peer of the connection is the client: no proxy in front is trusted to name another.
		UseRemoteAddress: enabled(), XffNumTrustedHops: 0,
		NormalizePath: enabled(), MergeSlashes: true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,
		StripTrailingHostDot:         true,
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(time.Hour),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{MaxConcurrentStreams: number(100),
			InitialStreamWindowSize: number(64 * 1024), InitialConnectionWindowSize: number(1024 * 1024)},
		RequestHeadersTimeout: durationpb.New(10 * time.Second),
		RequestTimeout:        durationpb.New(5 * time.Minute), // for the request to arrive, not for its answer
		StreamIdleTimeout:     durationpb.New(streamIdleTimeout),
		UpgradeConfigs:        []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	}
}

// logFields are the fields of one line of the access log. "member" names the cluster and the import that answered.
// "assignment" is the Envoy cluster (route and backends). "flags" and "reason" say what happened, in Envoy's terms. Queries
// are left out: they may contain secrets. Host and path are logged after any rewrite.
var logFields = map[string]string{
	"time":       "%START_TIME%",
	"method":     "%REQUEST_HEADER(:METHOD)%",
	"host":       "%REQUEST_HEADER(:AUTHORITY)%",
	"path":       "%PATH(NQ)%",
	"protocol":   "%PROTOCOL%",
	"client":     "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
	"request_id": "%REQUEST_HEADER(X-REQUEST-ID)%",
	"status":     "%RESPONSE_CODE%",
	"flags":      "%RESPONSE_FLAGS%",
	"reason":     "%RESPONSE_CODE_DETAILS%",
	"failure":    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"route":      "%ROUTE_NAME%",
	"assignment": "%UPSTREAM_CLUSTER_RAW%",
	"member":     "%CEL(xds.upstream_host_locality_metadata.filter_metadata['" + metadataKey + "']['member'])%",
	"upstream":   "%UPSTREAM_HOST%",
	"attempts":   "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"ms":         "%DURATION%",
	"received":   "%BYTES_RECEIVED%",
	"sent":       "%BYTES_SENT%",
}

// accessLog writes one JSON object per request to standard output.
func accessLog() *streamv3.StdoutAccessLog {
	fields := map[string]*structpb.Value{}
	for name, format := range logFields {
		fields[name] = structpb.NewStringValue(format)
	}
	return &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
	}}}
}
