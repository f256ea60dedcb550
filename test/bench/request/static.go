package request

import (
	"fmt"
	"strings"
)

// staticBootstrap is what one writes by hand for the same hosts, routes and endpoints: no log, no retries, no limits.
func (s site) staticBootstrap(address, dir string) string {
	var hosts, clusters, endpoints strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&endpoints, "{endpoint: {address: {socket_address: {address: %s, port_value: %d}}}}, ", u.Addr(), u.Port())
	}
	last := ""
	for i, r := range s.routes() {
		if r[0] != last {
			fmt.Fprintf(&hosts, "\n          - name: %s\n            domains: [%[1]s]\n            routes:", r[0])
			last = r[0]
		}
		match := "prefix: /"
		if r[1] != "/" {
			match = "path_separated_prefix: " + r[1]
		}
		fmt.Fprintf(&hosts, "\n            - {match: {%s}, route: {cluster: c%d, timeout: 0s}}", match, i)
		fmt.Fprintf(&clusters, "\n  - {name: c%d, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: c%[1]d, endpoints: [{lb_endpoints: [%s]}]}}", i, endpoints.String())
	}
	manager := func(prefix string) string {
		return fmt.Sprintf(`
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %s
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            name: %[1]s
            virtual_hosts:%[2]s
`, prefix, indented(hosts.String()))
	}
	return fmt.Sprintf(`
node: {id: static, cluster: static}
admin: {address: {pipe: {path: %[1]s/admin.sock}}}
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: %[2]s, port_value: %[3]d}}
    filter_chains:%[4]s
  - name: tls
    address: {socket_address: {address: %[2]s, port_value: %[5]d}}
    listener_filters: [{name: tls_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]
    filter_chains:%[6]s      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: %[1]s/site.crt}, private_key: {filename: %[1]s/site.key}}]
  clusters:%[7]s
`, dir, address, plainPort, manager("plain"), tlsPort, manager("tls"), clusters.String())
}

func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }
