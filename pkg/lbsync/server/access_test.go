package server_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
)

// Who has no edge's certificate for this place asks for everything by name, gets
// nothing, and reports no load.
func TestRefusedCertificates(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1"), nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1", "Listener l@1", "Route r@1", "Secret s@1"))
	otherCA, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	check(t, err)
	elsewhere := usEdge
	elsewhere.Region = "eu"
	nowhere := usEdge
	nowhere.Pool = "unknown"
	uri := usEdge.String()
	for _, test := range []struct {
		who         string
		certificate []tls.Certificate
		code        codes.Code
		message     string
	}{
		{"nobody", nil, codes.Unavailable, ""},
		{"a stranger", []tls.Certificate{certificateWith(t, otherCA, uri)}, codes.Unavailable, ""},
		{"a member", []tls.Certificate{certificateWith(t, h.ca)}, codes.PermissionDenied, "no edge's"},
		{"two edges in one", []tls.Certificate{certificateWith(t, h.ca, uri, strings.Replace(uri, "/us/", "/eu/", 1))}, codes.PermissionDenied, "no edge's"},
		{"another trust domain", []tls.Certificate{certificateWith(t, h.ca, strings.Replace(uri, "crossway", "evil", 1))}, codes.PermissionDenied, "no edge's"},
		{"an edge of another region", []tls.Certificate{h.certificate(elsewhere)}, codes.PermissionDenied, `EdgePool "public-us" is in region "us"`},
		{"an edge of no pool", []tls.Certificate{h.certificate(nowhere)}, codes.PermissionDenied, "unknown"},
	} {
		t.Run(test.who, func(t *testing.T) {
			connection := h.dial(test.certificate...)
			check := func(service string, err error) {
				t.Helper()
				if s := status.Convert(err); s.Code() != test.code || !strings.Contains(s.Message(), test.message) {
					t.Errorf("%s ended with %v, want %s with %q", service, err, test.code, test.message)
				}
			}
			check("ads", asksForAll(connection))
			check("load", reportsLoad(connection))
		})
	}
	if n := h.count("connected"); n != 0 {
		t.Errorf("%d of them connected", n)
	}
	if n := h.count("envoy-x of"); n != 0 {
		t.Errorf("%d of their load reports counted", n)
	}
}

// asksForAll asks for every resource by name and returns why it got none.
func asksForAll(connection *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	node := &core.Node{Id: "envoy-x", Cluster: pool, Locality: &core.Locality{Region: "us", Zone: "us-a"}}
	for typeURL, name := range map[string]string{
		resourcev3.ClusterType: "a", resourcev3.EndpointType: "a", resourcev3.ListenerType: "l", resourcev3.RouteType: "r", resourcev3.SecretType: "s",
	} {
		// An error here is io.EOF: the reason comes with Recv.
		_ = stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: []string{name}})
	}
	r, err := stream.Recv()
	if err == nil {
		return fmt.Errorf("got %s", describe(r))
	}
	return err
}

func reportsLoad(connection *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&loadstats.LoadStatsRequest{
		Node:         &core.Node{Id: "envoy-x", Locality: &core.Locality{Region: "us"}},
		ClusterStats: []*endpoint.ClusterStats{{ClusterName: "a"}},
	})
	if _, err = stream.Recv(); err == nil {
		return fmt.Errorf("the report was taken")
	}
	return err
}

// When an EdgePool changes its mind, streams that are open end too.
func TestReauthorize(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Cluster a@1")
	h.Reauthorize()
	e.getsNothing()
	h.mu.Lock()
	h.regions[pool] = "eu"
	h.mu.Unlock()
	h.Reauthorize()
	timer := time.AfterFunc(timeout, e.cancel)
	defer timer.Stop()
	_, err := e.stream.Recv()
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), `is in region "eu"`) {
		t.Errorf("the stream ended with %v, want PermissionDenied", err)
	}
	h.waitFor("disconnected envoy-0")
	if n := len(h.Edges(pool)); n != 0 {
		t.Errorf("%d edges connected, want none", n)
	}
}

// No stream outlives its certificate, and none starts on a connection that did.
func TestCertificateEnds(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	end := time.Now().Add(2 * time.Second).Truncate(time.Second) // as certificates say it
	connection := h.dial(certificateUntil(t, end, h.ca, usEdge.String()))
	e := open(t, connection, "envoy-0")
	e.asks(resourcev3.ClusterType, nil)
	e.takes("Cluster a@1")
	timer := time.AfterFunc(timeout, e.cancel)
	defer timer.Stop()
	_, err := e.stream.Recv()
	if s := status.Convert(err); s.Code() != codes.Unavailable || time.Now().Before(end) {
		t.Errorf("the stream ended %s after its certificate with %v", time.Since(end), err)
	}
	h.waitFor("disconnected envoy-0")
	if s := status.Convert(asksForAll(connection)); s.Code() != codes.Unavailable {
		t.Errorf("the next stream ended with %v, want Unavailable", s)
	}
}

// Load is the certificate's region's, whatever the node says; the first message
// may have counts already.
func TestLoadReports(t *testing.T) {
	h := newHub(t, server.Config{ReportInterval: 250 * time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := loadstats.NewLoadReportingServiceClient(h.dial(h.certificate(usEdge))).StreamLoadStats(ctx)
	check(t, err)
	stats := &endpoint.ClusterStats{
		ClusterName: "a", ClusterServiceName: "shop/a", LoadReportInterval: durationpb.New(time.Second), TotalDroppedRequests: 3,
		DroppedRequests: []*endpoint.ClusterStats_DroppedRequests{{Category: "empty", DroppedCount: 2}},
		UpstreamLocalityStats: []*endpoint.UpstreamLocalityStats{{
			Locality:            &core.Locality{Region: "us", Zone: "us-a", SubZone: "us-west/shop/a"},
			TotalIssuedRequests: 10, TotalSuccessfulRequests: 8, TotalErrorRequests: 1, TotalRequestsInProgress: 4,
		}},
	}
	check(t, stream.Send(&loadstats.LoadStatsRequest{
		Node: &core.Node{Id: "envoy-0", Locality: &core.Locality{Region: "eu"}}, ClusterStats: []*endpoint.ClusterStats{stats},
	}))
	r, err := stream.Recv()
	check(t, err)
	if !r.SendAllClusters || r.LoadReportingInterval.AsDuration() != 250*time.Millisecond {
		t.Errorf("the answer is %v, want all clusters each 250 ms", r)
	}
	h.waitFor("envoy-0 of us sent {Clusters:[{Cluster:a Assignment:shop/a Interval:1s Dropped:3 Drops:[{Category:empty Requests:2}] " +
		"Localities:[{Region:us Zone:us-a SubZone:us-west/shop/a Issued:10 Success:8 Error:1 InProgress:4}]}]}")
	check(t, stream.Send(&loadstats.LoadStatsRequest{}))
	h.waitFor("envoy-0 of us sent {Clusters:[]}") // no traffic is a report too
}

func TestMetrics(t *testing.T) {
	h := newHub(t, server.Config{})
	registry := prometheus.NewPedanticRegistry()
	for _, c := range h.Collectors() {
		registry.MustRegister(c)
	}
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Cluster a@1", "Route r@1")
	h.SetResources(pool, snapshot(2, "Cluster a@1", "Route r@2"))
	e.nack(e.gets("RouteConfiguration r@2"), "no")
	e.getsNothing()
	families, err := registry.Gather()
	check(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "crossway_xds_")
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"connected_edges public-us": 1, "connected_edges_limit": 100, "pushes_total route": 2, "acks_total route": 1, "nacks_total route": 1,
		"push_to_ack_seconds route": 2, "acks_total cluster": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
