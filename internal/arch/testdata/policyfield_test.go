// This file is compiled by TestClusterSettingTakesFourFiles only, with a field
// Dummy in BackendPolicySpec.

package arch_test

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

func object[T any](t *testing.T, text string) T {
	var o T
	testkit.Must(t, yaml.UnmarshalStrict([]byte(text), &o))
	return o
}

// Two backends of one rule have policies with different values, so they have
// Envoy clusters of their own, each with its value. With the same value they share
// one cluster.
func TestDummyReachesItsCluster(t *testing.T) {
	clusters := func(blue, green string) (names []string) {
		route := object[gatewayv1.HTTPRoute](t, `
metadata: {namespace: shop, name: store}
spec:
  parentRefs: [{name: shared}]
  rules: [{backendRefs: [
    {group: multicluster.x-k8s.io, kind: ServiceImport, name: blue, port: 80},
    {group: multicluster.x-k8s.io, kind: ServiceImport, name: green, port: 80}]}]`)
		in := gateway.Input{
			GatewayClasses: []gatewayv1.GatewayClass{object[gatewayv1.GatewayClass](t, "{metadata: {name: crossway}, spec: {controllerName: crossway.dev/gateway}}")},
			Gateways: []gatewayv1.Gateway{object[gatewayv1.Gateway](t, `
{metadata: {namespace: shop, name: shared}, spec: {gatewayClassName: crossway, listeners: [{name: http, protocol: HTTP, port: 80}]}}`)},
			Routes: []*gateway.Route{gateway.FromHTTPRoute(&route)},
			Pools: []v1alpha1.EdgePool{object[v1alpha1.EdgePool](t, `
metadata: {name: us}
spec: {region: us, addresses: [{cidr: 198.18.1.0/24}]}
status: {allocations: [{gateway: {namespace: shop, name: shared}, address: 198.18.1.1}]}`)},
		}
		for name, dummy := range map[string]string{"blue": blue, "green": green} {
			in.Imports = append(in.Imports, object[v1alpha1.FleetService](t, `
metadata: {namespace: crossway-fleet, name: `+name+`.shop}
spec: {service: {namespace: shop, name: `+name+`}, type: ClusterSetIP, ports: [{name: http, protocol: TCP, port: 80}], clusters: [{name: us-west, sequence: 1}]}`))
			in.Policies = append(in.Policies, object[v1alpha1.BackendPolicy](t, `
metadata: {namespace: shop, name: `+name+`}
spec: {targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: `+name+`}], dummy: `+dummy+`}`))
		}
		program := lbsync.ProgramFor(gateway.Build(in).Model, lbsync.PoolRef{Pool: "us", Region: "us"})
		for _, resource := range envoy.Translate(program).Clusters {
			var cluster clusterv3.Cluster
			testkit.Must(t, resource.Body.UnmarshalTo(&cluster))
			names = append(names, cluster.AltStatName)
		}
		slices.Sort(names)
		return names
	}
	if got := clusters("7", "8"); !slices.Equal(got, []string{"dummy 7", "dummy 8"}) {
		t.Errorf("clusters with %q", got)
	}
	if got := clusters("7", "7"); !slices.Equal(got, []string{"dummy 7"}) {
		t.Errorf("clusters with %q", got)
	}
}
