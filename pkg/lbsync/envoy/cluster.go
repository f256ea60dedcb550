package envoy

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"crossway.dev/crossway/pkg/gateway/model"
)

const (
	// connectTimeout is enough for a round trip of 350 ms after the first packet was lost, which the kernel sends again after
	// 1 s. It is short enough for endpoints of a cut member to be ejected within 2 s. Envoy has one for all endpoints of a
	// cluster, near or far.
	connectTimeout = 1400 * time.Millisecond
	// An address is ejected when, in one ejectionInterval, minFailedConnects connections to it or more could not be made
	// and none could. Envoy counts a request that ends with its connection as such a failure, too. But a request that is
	// given to a connection counts as a success, so requests that crash an endpoint are half of its count and eject nobody.
	// What is left to clients: requests that are all given in one interval and crash in another, to an endpoint that gets
	// no other request meanwhile.
	ejectionInterval  = 500 * time.Millisecond
	minFailedConnects = 3
	// maxEjectedPercent leaves some endpoint to requests, whatever clients do.
	maxEjectedPercent = 90
	// ejectionTime is for how long an ejected address gets no requests.
	ejectionTime = 10 * time.Second
	// http1IdleTimeout is how long a connection is kept without a request: shorter than servers keep theirs (gunicorn 2 s;
	// Node, uvicorn and Apache 5 s). What is not idempotent is lost on a connection that the server is just closing.
	http1IdleTimeout = 1500 * time.Millisecond
	// http2IdleTimeout may be longer: a GOAWAY says what was not read.
	http2IdleTimeout = time.Minute
	// bufferLimit is the size of a connection's buffers in bytes. Envoy's guide for edges has 32 KiB, with which an answer of
	// 1 MiB takes a quarter more of a processor, and an upload half as much again (docs/performance.md).
	bufferLimit = 128 * 1024
	// minRetryConcurrency is how many requests of a cluster may wait for their next try: as many as come in some seconds
	// while nearly all endpoints are dead.
	minRetryConcurrency = 1000
	// unlimited replaces Envoy's default limits of 1024, which protect one small sidecar and not an edge.
	unlimited = 1_000_000
)

// cluster returns the Envoy cluster of one assignment. If any field changes, Envoy builds and warms the cluster again,
// so no field depends on endpoints or shares.
func cluster(a model.Assignment) *clusterv3.Cluster {
	upstream := http1Upstream
	if a.Protocol == model.H2C {
		upstream = http2Upstream
	}
	if a.Timeout > 0 {
		upstream = packed(protocol(a))
	}
	return &clusterv3.Cluster{
		Name:                 a.Key,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}},
			HealthyPanicThreshold: &typev3.Percent{Value: 0}, // never to a host known to be dead
			UpdateMergeWindow:     durationpb.New(0),         // health changes reach the workers at once
		},
		OutlierDetection: outlierDetection(a.Policy),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: number(unlimited), MaxPendingRequests: number(unlimited), MaxRequests: number(unlimited), MaxRetries: number(unlimited),
			// While a whole cluster is dead, every second request is a retry. Requests that wait for their next try do
			// not count as active. A smaller budget would lose requests then.
			RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
				BudgetPercent: &typev3.Percent{Value: 100}, MinRetryConcurrency: number(minRetryConcurrency)},
		}}},
		PerConnectionBufferLimitBytes: number(bufferLimit),
		UpstreamConnectionOptions:     &clusterv3.UpstreamConnectionOptions{TcpKeepalive: peerKeepalive},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream},
		HealthChecks:              healthChecks(a),
		IgnoreHealthOnHostRemoval: true, // an endpoint that is gone is gone, whatever its last probe said
	}
}

// peerKeepalive closes a connection whose peer has vanished while nothing was on its way to it: after 5 s. While bytes are,
// the kernel does not probe. How long it sends them again is a setting of the edge's node, because every socket option for
// it would end a request to a backend that reads slowly, too. (docs/adr/0014-silence-of-a-peer.md)
//
// HTTP/2 has no pings: a gRPC server ends connections that ping more than once in five minutes (gRFC A8).
var peerKeepalive = &corev3.TcpKeepalive{KeepaliveTime: number(2), KeepaliveInterval: number(1), KeepaliveProbes: number(3)}

// outlierDetection ejects an address to which connections cannot be made. What a service answers ejects it only if its
// policy asks for that. A request that is not answered in time is half a failure, as one that crashes its endpoint is.
func outlierDetection(policy *model.ClusterPolicy) *clusterv3.OutlierDetection {
	zero := number(0)
	out := &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:         true,
		EnforcingFailurePercentageLocalOrigin:  number(100),
		FailurePercentageThreshold:             number(100),
		FailurePercentageMinimumHosts:          number(1),
		FailurePercentageRequestVolume:         number(minFailedConnects),
		EnforcingConsecutiveLocalOriginFailure: zero,
		EnforcingConsecutive_5Xx:               zero,
		EnforcingConsecutiveGatewayFailure:     zero,
		EnforcingSuccessRate:                   zero,
		EnforcingLocalOriginSuccessRate:        zero,
		Interval:                               durationpb.New(ejectionInterval),
		BaseEjectionTime:                       durationpb.New(ejectionTime),
		MaxEjectionTime:                        durationpb.New(ejectionTime),
		MaxEjectionPercent:                     number(maxEjectedPercent),
	}
	if policy != nil && policy.GatewayErrors > 0 {
		out.ConsecutiveGatewayFailure = number(uint32(policy.GatewayErrors))
		out.EnforcingConsecutiveGatewayFailure = number(100)
	}
	return out
}

func protocol(a model.Assignment) *httpv3.HttpProtocolOptions {
	idle := http1IdleTimeout
	if a.Protocol == model.H2C {
		idle = http2IdleTimeout
	}
	options := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(idle)}}
	if a.Timeout > 0 { // from the first byte sent to a backend to the last of its answer; not of an upgrade, see unlimitedFilter
		options.CommonHttpProtocolOptions.MaxStreamDuration = durationpb.New(a.Timeout)
	}
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	if a.Protocol == model.H2C {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}
	} else {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}
	}
	options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	options.RetryPolicy = retries(a)
	return options
}

func healthChecks(a model.Assignment) []*corev3.HealthCheck {
	h := a.Policy.Check()
	if h == nil {
		return nil
	}
	check := &corev3.HealthCheck{
		Timeout:            durationpb.New(h.Timeout),
		Interval:           durationpb.New(h.Interval),
		NoTrafficInterval:  durationpb.New(h.Interval),
		UnhealthyThreshold: number(2),
		HealthyThreshold:   number(1),
	}
	if h.Path == "" {
		check.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
		return []*corev3.HealthCheck{check}
	}
	http := &corev3.HealthCheck_HttpHealthCheck{Path: h.Path, Host: probedHost(a)}
	if a.Protocol == model.H2C {
		http.CodecClientType = typev3.CodecClientType_HTTP2
	}
	check.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: http}
	return []*corev3.HealthCheck{check}
}

// probedHost returns the Host of HTTP probes: the DNS name of the first import that is probed (KEP-1645). Envoy would
// send the cluster's name, which has slashes. Servers answer that with 400, and the backend would never be healthy.
func probedHost(a model.Assignment) string {
	k := slices.IndexFunc(a.Backends, func(b model.WeightedBackend) bool { return !b.Unchecked })
	if k < 0 {
		return ""
	}
	name := a.Backends[k].Backend.Name
	return name.Name + "." + name.Namespace + ".svc.clusterset.local"
}
