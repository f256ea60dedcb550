package gateway_test

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
)

// object reads an object from YAML.
func object[T any](text string) T {
	var o T
	if err := yaml.UnmarshalStrict([]byte(text), &o); err != nil {
		panic(err)
	}
	return o
}

// A Gateway and a route to a ServiceImport: what edges serve, and what the
// route's status says.
func ExampleBuild() {
	route := object[gatewayv1.HTTPRoute](`
metadata: {namespace: shop, name: store, generation: 1}
spec:
  parentRefs: [{name: shared}]
  hostnames: [store.example.com]
  rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 8080}]}]`)
	result := gateway.Build(gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{object[gatewayv1.GatewayClass](`
metadata: {name: crossway-global}
spec: {controllerName: crossway.dev/gateway}`)},
		Gateways: []gatewayv1.Gateway{object[gatewayv1.Gateway](`
metadata: {namespace: shop, name: shared, generation: 1}
spec: {gatewayClassName: crossway-global, listeners: [{name: http, protocol: HTTP, port: 80}]}`)},
		Routes: []*gateway.Route{gateway.FromHTTPRoute(&route)},
		Imports: []v1alpha1.FleetService{object[v1alpha1.FleetService](`
metadata: {namespace: crossway-fleet, name: store.shop}
spec:
  service: {namespace: shop, name: store}
  type: ClusterSetIP
  ports: [{name: http, protocol: TCP, port: 8080}]
  clusters: [{name: us-west, sequence: 1}]`)},
		Pools: []v1alpha1.EdgePool{object[v1alpha1.EdgePool](`
metadata: {name: us}
spec: {region: us, addresses: [{cidr: 198.18.1.0/24}]}
status: {allocations: [{gateway: {namespace: shop, name: shared}, address: 198.18.1.1}]}`)},
	})
	for _, l := range result.Model.Listeners {
		fmt.Println("listener", l.Gateway, l.Port, l.Addresses)
	}
	for _, a := range result.Model.Assignments {
		fmt.Println("assignment of", a.Backends[0].Backend.Name, "port", a.Backends[0].Port)
	}
	for _, report := range gateway.Report(result, gateway.Progress{}) {
		for _, parent := range report.Parents {
			for _, c := range parent.Conditions {
				fmt.Printf("%s %s %s=%s\n", report.Ref.Kind, report.Ref.Name, c.Type, c.Status)
			}
		}
	}
	// Output:
	// listener shop/shared 80 [{us 198.18.1.1}]
	// assignment of shop/store port 8080
	// HTTPRoute shop/store Accepted=True
	// HTTPRoute shop/store ResolvedRefs=True
}
