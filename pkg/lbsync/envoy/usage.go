package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Usage: load reports are for clusters that have requests, because they cost Envoy time for each endpoint. That a cluster
// has requests again, the edge says by a sample of the requests that it gives to an endpoint. A burst of some hundred
// requests in a second is in it, at a cost of some 10 us of a worker for each one of the sample.
const (
	usagePercent  = 2
	usageInterval = 250 * time.Millisecond // each worker collects for so long
	// hubCluster is the edge's own cluster for the hub, in charts/edge.
	hubCluster = "xds"
)

// usage is the sample, of requests that have ended. The router's upstream log would have those that begin; each request
// would cost 5 % more. Of a request it says how the edge and the network served it: nothing that the client wrote.
func usage() *grpcv3.TcpGrpcAccessLogConfig {
	return &grpcv3.TcpGrpcAccessLogConfig{CommonConfig: &grpcv3.CommonGrpcAccessLogConfig{
		LogName: "usage", TransportApiVersion: corev3.ApiVersion_V3, BufferFlushInterval: durationpb.New(usageInterval),
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: hubCluster}}},
	}}
}

// sampled is true for usagePercent of all requests. The request id has no say in it, since clients may choose that.
func sampled() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{RuntimeFilter: &accesslogv3.RuntimeFilter{
		RuntimeKey: "crossway.usage", PercentSampled: &typev3.FractionalPercent{Numerator: usagePercent}, UseIndependentRandomness: true}}}
}
