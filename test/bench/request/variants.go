package request

import (
	"os"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// change is a change of what an edge has.
type change struct {
	resource  func(proto.Message)
	bootstrap func(file string) error
}

// ofManager changes the connection managers of listeners.
func ofManager(do func(*hcmv3.HttpConnectionManager)) func(proto.Message) {
	return func(m proto.Message) {
		l, ok := m.(*listenerv3.Listener)
		if !ok {
			return
		}
		for _, c := range l.FilterChains {
			for _, f := range c.Filters {
				manager := &hcmv3.HttpConnectionManager{}
				if config := f.GetTypedConfig(); config != nil && config.UnmarshalTo(manager) == nil {
					do(manager)
					f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: mustPack(manager)}
				}
			}
		}
	}
}

// ofRouter changes the router of connection managers.
func ofRouter(do func(*routerv3.Router)) func(proto.Message) {
	return ofManager(func(m *hcmv3.HttpConnectionManager) {
		for _, f := range m.HttpFilters {
			router := &routerv3.Router{}
			if config := f.GetTypedConfig(); config != nil && config.UnmarshalTo(router) == nil {
				do(router)
				f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(router)}
			}
		}
	})
}

func ofRoutes(do func(*routev3.RouteConfiguration)) func(proto.Message) {
	return func(m proto.Message) {
		if r, ok := m.(*routev3.RouteConfiguration); ok {
			do(r)
		}
	}
}

func ofCluster(do func(*clusterv3.Cluster)) func(proto.Message) {
	return func(m proto.Message) {
		if c, ok := m.(*clusterv3.Cluster); ok {
			do(c)
		}
	}
}

// mustPack packs a message that was unpacked before.
func mustPack(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return out
}

// withoutBootstrap removes a top-level field from a bootstrap.
func withoutBootstrap(field string) func(string) error {
	return func(file string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var kept strings.Builder
		in := false
		for line := range strings.Lines(string(text)) {
			if line[0] != ' ' && line[0] != '#' && line[0] != '\n' {
				in = strings.HasPrefix(line, field+":")
			}
			if !in {
				kept.WriteString(line)
			}
		}
		return os.WriteFile(file, []byte(kept.String()), 0o600)
	}
}

const protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// withoutRetryFilter removes the filter that chooses which methods are repeated.
func withoutRetryFilter(m *hcmv3.HttpConnectionManager) {
	m.HttpFilters = slices.DeleteFunc(m.HttpFilters, func(f *hcmv3.HttpFilter) bool { return f.Name == envoy.RetryFilter })
}

// unbuffered lifts the limits of buffers, which matter to large bodies.
var unbuffered = kind{name: "limits of buffers", change: change{resource: func(m proto.Message) {
	switch m := m.(type) {
	case *listenerv3.Listener:
		m.PerConnectionBufferLimitBytes = nil
	case *clusterv3.Cluster:
		m.PerConnectionBufferLimitBytes = nil
	}
}}}

// withStatistics is an edge that also counts answers by their status for each cluster, as Envoy does by default.
var withStatistics = kind{name: "statistics by status", change: change{resource: ofRouter(func(r *routerv3.Router) { r.DynamicStats = wrapperspb.Bool(true) })}}

// variants are edges without one of the things that they have and the static Envoy has not.
var variants = []kind{
	{name: "access log", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) { m.AccessLog = nil })}},
	{name: "removal of proxies' headers", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) { m.EarlyHeaderMutationExtensions = nil })}},
	{name: "client address, x-forwarded-for", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) {
		m.UseRemoteAddress, m.InternalAddressConfig = nil, nil
	})}},
	{name: "path normalisation", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) {
		m.NormalizePath, m.MergeSlashes, m.PathWithEscapedSlashesAction = nil, false, 0
	})}},
	{name: "client timeouts", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) {
		m.RequestTimeout, m.RequestHeadersTimeout, m.StreamIdleTimeout = nil, nil, nil
		m.CommonHttpProtocolOptions.IdleTimeout = nil
	})}},
	{name: "limit of sends (upstream filter)", change: change{resource: ofRouter(func(r *routerv3.Router) { r.UpstreamHttpFilters = nil })}},
	{name: "choice of methods to retry", change: change{resource: ofManager(withoutRetryFilter)}},
	{name: "retries", change: change{resource: func(m proto.Message) {
		ofManager(withoutRetryFilter)(m)
		ofRouter(func(r *routerv3.Router) { r.UpstreamHttpFilters = nil })(m)
		ofRoutes(func(r *routev3.RouteConfiguration) {
			for _, h := range r.VirtualHosts {
				h.IncludeRequestAttemptCount = false
			}
		})(m)
		ofCluster(func(c *clusterv3.Cluster) {
			options := &httpv3.HttpProtocolOptions{}
			if c.TypedExtensionProtocolOptions[protocolOptions].UnmarshalTo(options) == nil {
				options.RetryPolicy = nil
				c.TypedExtensionProtocolOptions[protocolOptions] = mustPack(options)
			}
		})(m)
	}}},
	{name: "outlier detection", change: change{resource: ofCluster(func(c *clusterv3.Cluster) { c.OutlierDetection = nil })}},
	{name: "circuit breakers", change: change{resource: ofCluster(func(c *clusterv3.Cluster) { c.CircuitBreakers = nil })}},
	{name: "request id", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) { m.GenerateRequestId = wrapperspb.Bool(false) })}},
	{name: "overload manager", change: change{bootstrap: withoutBootstrap("overload_manager")}},
	{name: "choice of statistics", change: change{bootstrap: withoutBootstrap("stats_config")}},
	{name: "usage, for load reports", change: change{resource: ofManager(func(m *hcmv3.HttpConnectionManager) { m.AccessLog = m.AccessLog[:1] })}},
	{name: "load reports", change: change{bootstrap: withoutBootstrap("cluster_manager")}},
}
