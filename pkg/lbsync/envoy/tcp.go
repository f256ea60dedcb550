package envoy

import (
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// forwardTCP makes a filter chain send its connections to the targets of a
// chain. With certificates, TLS ends here; without, bytes are passed on as they are.
func forwardTCP(out *listenerv3.FilterChain, l lbsync.Listener, c model.Chain) {
	out.Filters = []*listenerv3.Filter{{Name: "envoy.filters.network.tcp_proxy",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(tcpProxy(l, c))}}}
	if len(c.Secrets) == 0 {
		return
	}
	context := downstreamTLS(l, c)
	context.CommonTlsContext.AlpnProtocols = nil // the protocol inside of TLS is the backend's
	tls(out, context)
}

// tcpProxy sends the part of targets that cannot be used to a cluster that does
// not exist: these connections are closed.
func tcpProxy(l lbsync.Listener, c model.Chain) *tcpv3.TcpProxy {
	out := &tcpv3.TcpProxy{StatPrefix: strings.ReplaceAll(ListenerName(&l.Listener)+"/"+c.Name, "/", ".")}
	if targets := c.TCP.Targets; len(targets) == 1 {
		out.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: tcpCluster(targets[0])}
		return out
	}
	weighted := &tcpv3.TcpProxy_WeightedCluster{}
	for _, t := range c.TCP.Targets {
		weighted.Clusters = append(weighted.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: tcpCluster(t), Weight: t.Weight})
	}
	out.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: weighted}
	return out
}

func tcpCluster(t model.L4Target) string {
	if t.Assignment == "" {
		return missingCluster
	}
	return t.Assignment
}
