package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
)

// typeURLs of all that an edge asks for.
var typeURLs = []string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}

// dialHub is a connection to the hub's xDS Service from region us, under any
// client certificate.
func dialHub(t *testing.T, certificate tls.Certificate) *grpc.ClientConn {
	t.Helper()
	service, err := story.Lab.Hub.Client.CoreV1().Services(lab.System).Get(t.Context(), "crossway-hub", metav1.GetOptions{})
	testkit.Must(t, err)
	config := &tls.Config{RootCAs: edgeCA(t).roots, ServerName: "crossway-hub.crossway-system.svc", MinVersion: tls.VersionTLS13}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	dial := story.Lab.DialerAt("edge-us")
	connection, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(service.Spec.ClusterIP, "18000"),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// ask asks for each type's resources by name, for clusters and listeners also
// for all (routes wait for those), and gives how many of that name came, by
// type. The error is the stream's, where the hub ended it. Who is refused, or gets
// all, waits for less than patience.
func ask(t *testing.T, connection *grpc.ClientConn, names []string, patience time.Duration) (map[string]int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	got := map[string]int{}
	for _, url := range typeURLs {
		request := &discovery.DeltaDiscoveryRequest{Node: falseNode(t), TypeUrl: url, ResourceNamesSubscribe: append([]string{"*"}, names...)}
		if url != typeURLs[0] && url != typeURLs[2] {
			request.ResourceNamesSubscribe = names
		}
		if err := stream.Send(request); err != nil {
			break // Recv says why
		}
	}
	for len(got) < len(typeURLs) {
		r, err := stream.Recv()
		if ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
			return got, nil // nothing more came
		}
		if err != nil {
			return got, err
		}
		for _, resource := range r.Resources {
			if slices.Contains(names, resource.Name) {
				got[short(r.TypeUrl)]++
			}
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}); err != nil {
			t.Log(err)
		}
	}
	return got, nil
}

// falseNode claims to be of us, whoever asks.
func falseNode(t *testing.T) *corev3.Node {
	return &corev3.Node{Id: nodeName(t), Cluster: "us", Locality: &corev3.Locality{Region: "us", Zone: "us-edge-1"}}
}

// swamp is an edge that holds an assignment and reports 1000 requests a second
// for it, until stop.
func swamp(t *testing.T, connection *grpc.ClientConn, assignment string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	t.Cleanup(stop)
	configuration, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	testkit.Must(t, err)
	testkit.Must(t, configuration.Send(&discovery.DeltaDiscoveryRequest{Node: falseNode(t), TypeUrl: typeURLs[1], ResourceNamesSubscribe: []string{assignment}}))
	all.Go(func() {
		for {
			r, err := configuration.Recv()
			if err != nil {
				return
			}
			_ = configuration.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
		}
	})
	reports, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx)
	testkit.Must(t, err)
	testkit.Must(t, reports.Send(&loadstats.LoadStatsRequest{Node: falseNode(t)}))
	if _, err := reports.Recv(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	all.Go(func() {
		for ctx.Err() == nil {
			_ = reports.Send(&loadstats.LoadStatsRequest{ClusterStats: []*endpointv3.ClusterStats{thousand(assignment)}})
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	return stop
}

func thousand(assignment string) *endpointv3.ClusterStats {
	return &endpointv3.ClusterStats{
		ClusterName: assignment, LoadReportInterval: durationpb.New(time.Second),
		UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
			Locality:            &corev3.Locality{Region: "us", Zone: "us-west-1", SubZone: "us-west/shop/checkout"},
			TotalIssuedRequests: 1000, TotalSuccessfulRequests: 1000,
		}},
	}
}
