package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// logFields are the fields of one line of the access log. "member" names the cluster and the import that answered.
// "assignment" is the Envoy cluster (route and backends). "flags" and "reason" say what happened, in Envoy's terms. Queries
// are left out: they may contain secrets. Host and path are logged after any rewrite. docs/traffic.md says the same.
var logFields = map[string]string{
	"time":       "%START_TIME%",
	"method":     "%REQUEST_HEADER(:METHOD)%",
	"host":       "%REQUEST_HEADER(:AUTHORITY)%",
	"path":       "%PATH(NQ)%",
	"protocol":   "%PROTOCOL%",
	"client":     "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
	"request_id": "%REQUEST_HEADER(X-REQUEST-ID)%",
	"status":     "%RESPONSE_CODE%",
	"flags":      "%RESPONSE_FLAGS%",
	"reason":     "%RESPONSE_CODE_DETAILS%",
	"failure":    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"route":      "%ROUTE_NAME%",
	"assignment": "%UPSTREAM_CLUSTER_RAW%",
	"member":     "%UPSTREAM_HOST_NAME%", // see locality
	"upstream":   "%UPSTREAM_HOST%",
	"attempts":   "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"ms":         "%DURATION%",
	"received":   "%BYTES_RECEIVED%",
	"sent":       "%BYTES_SENT%",
}

// accessLogs are the logs of a connection manager: one for people, and the sample for the hub.
func accessLogs() []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{
		{Name: "envoy.access_loggers.stdout", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: stdoutLog}},
		{Name: "envoy.access_loggers.tcp_grpc", Filter: sampled(), ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: usageLog}},
	}
}

// accessLog writes one JSON object per request to standard output.
func accessLog() *streamv3.StdoutAccessLog {
	fields := map[string]*structpb.Value{}
	for name, format := range logFields {
		fields[name] = structpb.NewStringValue(format)
	}
	return &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
	}}}
}
