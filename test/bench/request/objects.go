package request

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Ports of each Envoy, at an address of its own.
const (
	plainPort = 8080
	tlsPort   = 8443
)

// site is what both Envoys serve: routes, each to its own backend of all endpoints.
type site struct {
	name  string
	hosts int // each with one route; 0: one host
	paths int // routes of the one host, for /r0000/, /r0001/ ...
}

// small is the site of all comparisons that are not about many routes.
var small = site{name: "10 hosts", hosts: 10}

// routes are the hostname and the path prefix of each route, in the order in which the edge tries them.
func (s site) routes() (all [][2]string) {
	for i := range s.hosts {
		all = append(all, [2]string{fmt.Sprintf("s%d.example.com", i), "/"})
	}
	for i := range s.paths {
		all = append(all, [2]string{"s0.example.com", fmt.Sprintf("/r%04d", i)})
	}
	return all
}

// path is one that the last route of a host serves.
func (s site) path() string {
	if s.paths > 0 {
		return fmt.Sprintf("/r%04d/", s.paths-1)
	}
	return "/"
}

// program is what the edges of a pool serve of a site, with the Gateway at an address.
func (s site) program(pool, address string, certificate corev1.Secret) (lbsync.Program, error) {
	in := gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Pools:          []v1alpha1.EdgePool{{ObjectMeta: metav1.ObjectMeta{Name: pool}, Spec: v1alpha1.EdgePoolSpec{Region: region}}},
		Secrets:        []corev1.Secret{certificate},
	}
	in.Pools[0].Status.Allocations = []v1alpha1.AddressAllocation{{Gateway: v1alpha1.GatewayReference{Namespace: namespace, Name: "shared"}, Address: address}}
	plain := gatewayv1.Listener{Name: "http", Port: plainPort, Protocol: gatewayv1.HTTPProtocolType}
	secure := gatewayv1.Listener{Name: "https", Port: tlsPort, Protocol: gatewayv1.HTTPSProtocolType,
		TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: gatewayv1.ObjectName(certificate.Name)}}}}
	all := gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: new(gatewayv1.NamespacesFromAll)}}
	plain.AllowedRoutes, secure.AllowedRoutes = &all, &all
	in.Gateways = []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shared", Generation: 1},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway", Listeners: []gatewayv1.Listener{plain, secure}}}}
	for i, r := range s.routes() {
		team, name := fmt.Sprintf("team-%d", i%4), fmt.Sprintf("app-%04d", i) // the budget of one namespace has no room for 1000 routes
		in.Routes = append(in.Routes, gateway.FromHTTPRoute(httpRoute(team, name, r[0], r[1])))
		imported := v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: name + "." + team}}
		imported.Spec.Service = v1alpha1.ServiceReference{Namespace: team, Name: name}
		imported.Spec.Ports = []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Port: 8080}}}
		in.Imports = append(in.Imports, imported)
	}
	p := lbsync.ProgramFor(gateway.Build(in).Model, lbsync.PoolRef{Pool: pool, Region: region})
	if len(p.Assignments) != len(in.Routes) {
		return p, fmt.Errorf("%d assignments of %d routes", len(p.Assignments), len(in.Routes))
	}
	return p, nil
}

const (
	namespace = "bench"
	region    = "us"
)

func httpRoute(team, name, host, path string) *gatewayv1.HTTPRoute {
	out := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: name, Generation: 1, CreationTimestamp: metav1.NewTime(time.Unix(0, 0))}}
	out.Spec.ParentRefs = []gatewayv1.ParentReference{{Namespace: new(gatewayv1.Namespace(namespace)), Name: "shared"}}
	out.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(host)}
	out.Spec.Rules = []gatewayv1.HTTPRouteRule{{
		Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &path}}},
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Group: new(gatewayv1.Group(mcsv1beta1.GroupName)), Kind: new(gatewayv1.Kind("ServiceImport")), Name: gatewayv1.ObjectName(name), Port: new(gatewayv1.PortNumber(8080))}}}}}}
	return out
}

// loadAssignment divides a backend evenly over two endpoints in each of three members.
func loadAssignment(a model.Assignment) (envoy.Resource, error) {
	out := lbsync.LoadAssignment{Key: a.Key}
	for i, member := range []fleet.ClusterName{"eu-west", "us-east", "us-west"} {
		endpoints := upstreams[2*i : 2*i+2]
		out.Localities = append(out.Localities, lbsync.Locality{Backend: a.Backends[0].Backend, Cluster: member,
			Place: fleet.Place{Region: string(member[:2]), Zone: string(member) + "-1"}, Weight: traffic.TotalParts / 3, Endpoints: endpoints})
	}
	return envoy.LoadAssignment(out)
}

// upstreams are the addresses at which nginx is the endpoints.
var upstreams = func() (all []netip.AddrPort) {
	for i := range 6 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 2, byte(i + 1)}), 18081))
	}
	return all
}()

// newCertificate is a Secret for all hosts.
func newCertificate() (corev1.Secret, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return corev1.Secret{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return corev1.Secret{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "certificate", ResourceVersion: "1"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}}, err
}
