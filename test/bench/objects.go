package bench

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Each import has perCluster endpoints in each of three members. One is a real
// cluster. The other two are only namespaces on the hub, to which the bench
// writes what an agent would. Nothing listens at the addresses: no request is sent.
const (
	perCluster = 50
	clusters   = 3
	realMember = "us-west"
)

// hubOnly are the members without an agent, their regions and address ranges.
var hubOnly = []struct{ name, region, cidr string }{{"bench-us", "us", "10.201.0.0/16"}, {"bench-eu", "eu", "10.202.0.0/16"}}

// namespace of the routes and imports, and the Gateway's name in it.
const (
	namespace = "bench"
	gateway   = "shared"
)

const setupHub = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: bench}
spec:
  gatewayClassName: crossway-global
  listeners:
  - {name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}
`

func to[T any](v T) *T { return &v }

// service is one import of the bench: number places its addresses.
type service struct {
	namespace, name string
	number          int
}

func (s service) host() string { return s.name + "." + s.namespace + ".example.com" }

// assignment is what the names of its route's load assignments begin with.
func (s service) assignment() string { return s.namespace + "/" + s.name + "/" }

// address of an endpoint: network is the /16's first two numbers. The first
// 2048 of a range are left to the lab's own pods.
func address(network string, number int) string {
	number += 2048
	return fmt.Sprintf("%s.%d.%d", network, number>>8, number&255)
}

// endpoints of a service in one cluster, like those of ready pods. With turn
// odd the last one has another address, as if its pod had been replaced.
func (s service) endpoints(network, zone string, turn int) []discoveryv1.Endpoint {
	out := make([]discoveryv1.Endpoint, perCluster)
	for k := range out {
		out[k] = discoveryv1.Endpoint{
			Addresses:  []string{address(network, s.number*perCluster+k)},
			Zone:       to(zone),
			Conditions: discoveryv1.EndpointConditions{Ready: to(true), Serving: to(true), Terminating: to(false)},
		}
	}
	if turn%2 == 1 {
		out[perCluster-1].Addresses[0] = address(network, 1200*perCluster+s.number) // above what 1200 services use
	}
	return out
}

func slicePorts(name string) []discoveryv1.EndpointPort {
	return []discoveryv1.EndpointPort{{Name: to(name), Port: to(int32(8080)), Protocol: to(corev1.ProtocolTCP)}}
}

// hubSlice is a slice as the agent of a member without one would push it.
func (s service) hubSlice(member, network string, turn int) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + member, Name: s.name + "." + s.namespace, Labels: map[string]string{
			v1alpha1.LabelServiceName: s.name, v1alpha1.LabelServiceNamespace: s.namespace, v1alpha1.LabelSourceCluster: member,
			discoveryv1.LabelManagedBy: v1alpha1.ManagedBySlices}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: slicePorts("tcp-8080"), Endpoints: s.endpoints(network, member+"-1", turn),
	}
}

// hubExports are the MemberExport and slice of each member without an agent.
func (s service) hubExports() []client.Object {
	var out []client.Object
	for _, m := range hubOnly {
		out = append(out, s.memberExport(m.name), s.hubSlice(m.name, m.cidr[:6], 0))
	}
	return out
}

// memberExport is what a member's agent would push of its export.
func (s service) memberExport(member string) *v1alpha1.MemberExport {
	return &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + member, Name: s.name + "." + s.namespace},
		Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: s.namespace, Name: s.name}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP, SessionAffinity: corev1.ServiceAffinityNone, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
			Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 8080}},
		},
	}
}

// noProxy is the label that keeps kube-proxy from programming rules for a Service.
// In a fleet the members' kube-proxies run on other machines.
const noProxy = "service.kubernetes.io/service-proxy-name"

// memberSlice is a slice of the real member, as its EndpointSlice controller
// would make it.
func (s service) memberSlice(turn int) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name, Labels: map[string]string{
			discoveryv1.LabelServiceName: s.name, discoveryv1.LabelManagedBy: "bench.crossway.dev", noProxy: "none"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: slicePorts("http"), Endpoints: s.endpoints("10.1", "us-west-1", turn),
	}
}

func (s service) memberService() []client.Object {
	return []client.Object{&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name, Labels: map[string]string{noProxy: "none"}},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 8080}}},
	}, s.memberSlice(0)}
}

func (s service) export() *mcsv1beta1.ServiceExport {
	return &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}}
}

// route to the import under its own hostname; turn is the value of a header
// that it sets.
func (s service) route(turn int) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Namespace: to(gatewayv1.Namespace(namespace)), Name: gateway}}},
			Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(s.host())},
			Rules: []gatewayv1.HTTPRouteRule{{
				Filters: []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{
					Set: []gatewayv1.HTTPHeader{{Name: "x-turn", Value: fmt.Sprint(turn)}}}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
					Group: to(gatewayv1.Group("multicluster.x-k8s.io")), Kind: to(gatewayv1.Kind("ServiceImport")),
					Name: gatewayv1.ObjectName(s.name), Port: to(gatewayv1.PortNumber(8080))}}}},
			}},
		},
	}
}
