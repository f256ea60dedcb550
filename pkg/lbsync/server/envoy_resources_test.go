package server_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync/server"
)

func pack(t testing.TB, message proto.Message) *anypb.Any {
	t.Helper()
	body, err := anypb.New(message)
	check(t, err)
	return body
}

func resourceOf(t testing.TB, name string, message proto.Message) server.Resource {
	t.Helper()
	return server.Resource{Name: name, Body: pack(t, message)}
}

var fromADS = &core.ConfigSource{
	ResourceApiVersion: core.ApiVersion_V3, ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
}

// clusterOf uses the assignment of its name. The fetch timeout is Envoy's own
// (15 s): a cluster that is warm sooner got its assignment.
func clusterOf(t testing.TB, name string, connect time.Duration) server.Resource {
	t.Helper()
	return resourceOf(t, name, &cluster.Cluster{
		Name: name, ConnectTimeout: durationpb.New(connect),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS},
	})
}

func assignmentOf(t testing.TB, name string, ports ...int) server.Resource {
	t.Helper()
	locality := &endpoint.LocalityLbEndpoints{Locality: &core.Locality{Region: "us", Zone: "us-a", SubZone: "us-west/shop/" + name}}
	for _, port := range ports {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpoint.LbEndpoint{
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: loopback(port)}},
		})
	}
	return resourceOf(t, name, &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{locality}})
}

func loopback(port int) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func listenerOf(t testing.TB, name string, port int) server.Resource {
	t.Helper()
	manager := &hcm.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: fromADS, RouteConfigName: name}},
		HttpFilters: []*hcm.HttpFilter{{
			Name: "router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(t, &router.Router{})},
		}},
	}
	return resourceOf(t, name, &listener.Listener{Name: name, Address: loopback(port), FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{{Name: "http", ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(t, manager)}}},
	}}})
}

// routeOf sends paths that match to a cluster.
func routeOf(t testing.TB, name, regex, target string) server.Resource {
	t.Helper()
	return resourceOf(t, name, &route.RouteConfiguration{
		Name: name, ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*route.Route{{
			Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: regex}}},
			Action: &route.Route_Route{Route: &route.RouteAction{
				ClusterSpecifier: &route.RouteAction_Cluster{Cluster: target},
			}},
		}}}},
	})
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// bootstrap is how an edge is started: delta ADS and load reports to the hub,
// both with the edge's certificate.
func bootstrap(hubAddress, certificate, key, ca string, admin int) string {
	host, port, _ := net.SplitHostPort(hubAddress)
	return fmt.Sprintf(`
node: {id: envoy-0, cluster: public-us, locality: {region: us, zone: us-a}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %[6]d}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true,
    grpc_services: [{envoy_grpc: {cluster_name: xds, retry_policy: {retry_back_off: {base_interval: 0.1s, max_interval: 0.5s}}}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
cluster_manager: {load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 5s, timeout: 2s}}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %[3]q}, private_key: {filename: %[4]q}}]
          validation_context: {trusted_ca: {filename: %[5]q}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[1]s, port_value: %[2]s}}}}]}]}
`, host, port, certificate, key, ca, admin)
}

// badCluster has a type that must not have endpoints, with them.
func badCluster(name string) *cluster.Cluster {
	return &cluster.Cluster{
		Name: name, ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		LbPolicy: cluster.Cluster_CLUSTER_PROVIDED,
	}
}
