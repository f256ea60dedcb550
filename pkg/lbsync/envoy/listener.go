package envoy

import (
	"net/netip"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// missingCluster names a cluster that never exists. Envoy closes a connection that is sent there at once.
const missingCluster = "crossway/nowhere"

// listener adds one port of one Gateway: its Listener, and a RouteConfiguration for each chain.
func (t *translator) listener(l lbsync.Listener) {
	t.out.Append(t.cache.listener(l))
	for _, c := range l.Chains {
		if !rejects(l, c) && c.TCP == nil {
			t.out.Append(t.cache.routes(l, c))
		}
	}
}

// withoutRoutes adds the Listener alone. Envoy drains the connections of a filter chain that differs in any byte, and
// those of all chains when any other field of the Listener differs. So each chain depends on nothing but itself, and the
// other fields on nothing but the port, its protocol, its address and the Gateway's own ClientSettings.
func (t *translator) withoutRoutes(l lbsync.Listener) {
	name := ListenerName(&l.Listener)
	out := &listenerv3.Listener{
		Name:                          name,
		Address:                       socket(l.Address, uint32(l.Port)),
		Freebind:                      enabled(), // before the edge has the address, and once it has it
		EnableReusePort:               enabled(), // several edges share the addresses of a pool
		PerConnectionBufferLimitBytes: number(bufferLimit),
		ListenerFilters:               listenerFilters(l),
		ListenerFiltersTimeout:        durationpb.New(listenerFiltersTimeout),
		TcpKeepalive:                  clientKeepalive,
	}
	for _, c := range l.Chains {
		chain := chain(l, c)
		if err := validate(chain); err != nil {
			t.out.Faults = append(t.out.Faults, Fault{TypeURL: resourcev3.ListenerType, Name: name, Part: c.Name, Message: err.Error()})
			chain.Filters, chain.TransportSocket = []*listenerv3.Filter{reject()}, nil
		}
		out.FilterChains = append(out.FilterChains, chain)
	}
	t.add(&t.out.Listeners, name, out, listenerSources(l))
}

// listenerFilters read what comes before the protocol of a chain: the client's address from a proxy, the server name.
func listenerFilters(l lbsync.Listener) (filters []*listenerv3.ListenerFilter) {
	add := func(name string, config *anypb.Any) {
		filters = append(filters, &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: config}})
	}
	if l.Clients.ProxyProtocol {
		add("envoy.filters.listener.proxy_protocol", proxyProtocol)
	}
	if l.Protocol == model.HTTPS || l.Protocol == model.TLS {
		add("envoy.filters.listener.tls_inspector", tlsInspector)
	}
	return filters
}

// ListenerName names the resource of a listener; the names of its RouteConfigurations begin with it.
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

func chain(l lbsync.Listener, c model.Chain) *listenerv3.FilterChain {
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
	if l.Protocol == model.HTTPS {
		tls(out, downstreamTLS(l, c))
	}
	out.Filters = []*listenerv3.Filter{{Name: "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(connectionManager(l, c))}}}
	return out
}

// reject returns a filter that closes every connection. The server name of a broken listener must not fall through into
// a wider chain.
func reject() *listenerv3.Filter {
	return &listenerv3.Filter{Name: "envoy.filters.network.tcp_proxy",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: rejectingProxy}}
}

// tls makes a chain take TLS connections. A client has handshakeTimeout for its part of the handshake.
func tls(out *listenerv3.FilterChain, context *tlsv3.DownstreamTlsContext) {
	out.TransportSocket = &corev3.TransportSocket{Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(context)}}
	out.TransportSocketConnectTimeout = durationpb.New(handshakeTimeout)
}

func downstreamTLS(l lbsync.Listener, c model.Chain) *tlsv3.DownstreamTlsContext {
	common := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
		AlpnProtocols: []string{"h2", "http/1.1"},
	}
	for n := range c.Secrets {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs,
			&tlsv3.SdsSecretConfig{Name: lbsync.SecretName(&l.Listener, c.Name, n), SdsConfig: adsSource()})
	}
	return &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
}

// secret is a certificate with its key. It is a resource of its own, so that a new certificate disturbs no connection.
func secret(s lbsync.Secret) *tlsv3.Secret {
	inline := func(content []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: content}}
	}
	return &tlsv3.Secret{Name: s.Name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(s.Certificate), PrivateKey: inline(s.PrivateKey)}}}
}
