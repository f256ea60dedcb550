package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/pkg/registration"
)

const (
	scaleRegions = 10
	edgesPerPool = 2
	scaleTeams   = 10
)

func teamOf(n int) string { return fmt.Sprintf("team-%d", n) }

// regionOf is the region of a member: those with Envoys come first.
func (s *Scale) regionOf(member int) string {
	n := member % scaleRegions
	if n < len(s.fleet.Regions) {
		return s.fleet.Regions[n]
	}
	return fmt.Sprintf("region-%d", n)
}

// mockEdge is an edge without an Envoy. It takes everything at once, reconnects as an Envoy does, with the versions that
// it has, and forgets what is in a resource.
type mockEdge struct {
	pool, node string
	tls        *tls.Config
	dial       func(context.Context, string) (net.Conn, error)
	address    string

	loads    atomic.Pointer[[]*endpointv3.ClusterStats] // what it reports each second; nil: nothing yet
	mu       sync.Mutex
	versions map[string]map[string]string // by type and name
}

// has is how many resources of a type it has.
func (e *mockEdge) has(typeURL string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.versions[typeURL])
}

// names are those of the resources of a type that it has.
func (e *mockEdge) names(typeURL string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.versions[typeURL]))
}

// run keeps a stream open until ctx ends.
func (e *mockEdge) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = e.stream(ctx) // why it ended is in the hub's log
		_ = pause(ctx, 300*time.Millisecond)
	}
}

func (e *mockEdge) stream(ctx context.Context) error {
	connection, err := grpc.NewClient("passthrough:///"+e.address, grpc.WithTransportCredentials(credentials.NewTLS(e.tls)), grpc.WithContextDialer(e.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go e.report(ctx, connection)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.ListenerType} {
		errs = append(errs, stream.Send(e.subscribe(typeURL, nil)))
	}
	var chains []string
	for n := range scaleTeams {
		chains = append(chains, teamOf(n)+"/"+gateway+"/80")
	}
	errs = append(errs, stream.Send(e.subscribe(resourcev3.RouteType, chains)))
	if clusters := e.names(resourcev3.ClusterType); len(clusters) > 0 { // an edge that connects again
		errs = append(errs, stream.Send(e.subscribe(resourcev3.EndpointType, clusters)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		names := e.take(r)
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}); err != nil {
			return err
		}
		if r.TypeUrl == resourcev3.ClusterType && len(names) > 0 {
			if err := stream.Send(e.subscribe(resourcev3.EndpointType, names)); err != nil {
				return err
			}
		}
	}
}

// subscribe is the request for resources by name, or for all of a type. It says which versions the edge has.
func (e *mockEdge) subscribe(typeURL string, names []string) *discovery.DeltaDiscoveryRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &discovery.DeltaDiscoveryRequest{Node: &corev3.Node{Id: e.node, Cluster: e.pool}, TypeUrl: typeURL, ResourceNamesSubscribe: names,
		InitialResourceVersions: map[string]string{}}
	for name, version := range e.versions[typeURL] {
		r.InitialResourceVersions[name] = version
	}
	return r
}

// take notes what came, and returns the names.
func (e *mockEdge) take(r *discovery.DeltaDiscoveryResponse) (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.versions[r.TypeUrl] == nil {
		e.versions[r.TypeUrl] = map[string]string{}
	}
	for _, one := range r.Resources {
		names = append(names, one.Name)
		e.versions[r.TypeUrl][one.Name] = one.Version
	}
	for _, name := range r.RemovedResources {
		delete(e.versions[r.TypeUrl], name)
	}
	return names
}

// makePools makes the pools of the regions that have no Envoys, the teams' namespaces and Gateways, and the mock edges.
func (s *Scale) makePools(ctx context.Context) error {
	for n := len(s.fleet.Regions); n < scaleRegions; n++ {
		region := s.regionOf(n)
		pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: region}, Spec: v1alpha1.EdgePoolSpec{Region: region,
			Addresses: []v1alpha1.AddressBlock{{CIDR: fmt.Sprintf("198.19.%d.0/24", n)}}}}
		if err := create(ctx, s.hub, pool); err != nil {
			return err
		}
		for k := range edgesPerPool {
			e, err := s.mockEdge(ctx, pool, fmt.Sprintf("mock-edge-%s-%d", region, k))
			if err != nil {
				return err
			}
			s.edges = append(s.edges, e)
			go e.run(s.life)
		}
	}
	for n := range scaleTeams {
		g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: gateway, Namespace: teamOf(n)}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway-global",
			Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}}}
		if err := create(ctx, s.hub, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: teamOf(n)}}, g); err != nil {
			return err
		}
	}
	return nil
}

// mockEdge makes an edge of a pool, with a certificate that the fleet's own CA of edges signs.
func (s *Scale) mockEdge(ctx context.Context, pool *v1alpha1.EdgePool, node string) (*mockEdge, error) {
	var secret corev1.Secret
	if err := s.hub.Get(ctx, client.ObjectKey{Namespace: lab.System, Name: registration.EdgeCASecret}, &secret); err != nil {
		return nil, err
	}
	var address corev1.Service
	if err := s.hub.Get(ctx, client.ObjectKey{Namespace: lab.System, Name: "crossway-hub"}, &address); err != nil {
		return nil, err
	}
	authority := registration.CAOf(secret.Data)
	pair, err := registration.NewEdgeCertificate(authority.Issuer(time.Now(), rand.Reader), registration.EdgeIdentity{Pool: pool.Name, Region: pool.Spec.Region,
		Zone: pool.Spec.Region + "-a", PoolUID: string(pool.UID), Credential: "mockedge00"}, registration.DefaultEdgeLife)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.Bundle())
	dial := s.fleet.DialerAt("edge-" + s.fleet.Regions[0])
	return &mockEdge{pool: pool.Name, node: node, address: address.Spec.ClusterIP + ":18000", versions: map[string]map[string]string{},
		tls:  &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "crossway-hub.crossway-system.svc"},
		dial: func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }}, nil
}

// route makes a route to each import, and waits until all edges have all load assignments.
func (s *Scale) route(ctx context.Context) error {
	began := time.Now()
	exported := map[service]bool{} // few are drawn by nobody
	for _, m := range s.members {
		for _, e := range m.exports {
			exported[e] = true
		}
	}
	names := slices.Collect(maps.Keys(exported))
	err := each(names, func(e service) error {
		r := e.route(0)
		r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: gateway}}
		return create(ctx, s.hub, r)
	})
	if err != nil {
		return err
	}
	for _, e := range s.edges {
		for e.has(resourcev3.EndpointType) < len(names) {
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return fmt.Errorf("edge %s has %d of %d load assignments: %w", e.node, e.has(resourcev3.EndpointType), len(names), err)
			}
		}
	}
	s.figures["scale_routed_s"] = Value(time.Since(began).Seconds())
	want := len(s.members) * exportsPerMember * endpointsPerExport
	return awaitCount(ctx, s.fleet, s.envoys, `^cluster\.team.*\.membership_total$`, want)
}
