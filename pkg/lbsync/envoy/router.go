package envoy

import (
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// retryIdempotentFilter is the same in all chains.
var retryIdempotentFilter = retryIdempotent()

// router sends requests to backends. It does not count answers by their status for each cluster
// (cluster.*.upstream_rq_2xx, upstream_rq_200, external.* and zone.*): Envoy looks up nine names for each request to do so,
// which is 6 % of what a request costs. The listener counts them (http.*.downstream_rq_2xx), and the access log has
// assignment and status.
func router() *routerv3.Router {
	return &routerv3.Router{SuppressEnvoyHeaders: true, UpstreamHttpFilters: sendLimitFilters(), DynamicStats: wrapperspb.Bool(false)}
}

// requestID makes and keeps request ids as they are. Envoy would write into each whether the request is traced; no edge
// traces.
func requestID() *hcmv3.RequestIDExtension { return &hcmv3.RequestIDExtension{TypedConfig: requestIDs} }

func uuids() *uuidv3.UuidRequestIdConfig {
	return &uuidv3.UuidRequestIdConfig{PackTraceReason: wrapperspb.Bool(false), UseRequestIdForTraceSampling: wrapperspb.Bool(false)}
}
