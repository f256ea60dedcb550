package server

import (
	"time"

	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// usageServer receives usage: of a sample of an edge's requests, which cluster they
// went to. Each worker of an Envoy has a stream of its own. Nothing is counted: load
// reports do that, and usage says for which clusters an edge has to be asked.
type usageServer struct {
	accesslog.UnimplementedAccessLogServiceServer
	*Server
}

// StreamAccessLogs receives the usage of one worker. It is called by gRPC.
func (u usageServer) StreamAccessLogs(g accesslog.AccessLogService_StreamAccessLogsServer) error {
	return u.serve(g.Context(), usage, func(open *session, ended chan<- error) {
		go func() { ended <- u.collect(g, open) }()
	})
}

// strayTime is how long a connection that is for usage alone stays while the load reports
// of its edge come to another replica of the hub: here nobody asks the edge for anything.
// The next connection may lead there. No edge's handshakes are many then.
const strayTime = time.Minute

var errStray = status.Error(codes.Unavailable, "the load reports of this edge come to another replica of the hub; connect again")

func (u usageServer) collect(g accesslog.AccessLogService_StreamAccessLogsServer, open *session) error {
	silent := open.endAfter(firstRequestTimeout, "no usage within %s", firstRequestTimeout)
	defer silent.Stop()
	var edge Edge
	reported := time.Now() // when load reports of the edge came here last
	for {
		var m accesslog.StreamAccessLogsMessage
		err := open.next(g, &m, func() (err error) {
			if edge.Stream == 0 {
				if edge, err = named(open, m.GetIdentifier().GetNode().GetId()); err != nil {
					return err
				}
				silent.Stop()
			}
			now, w := time.Now(), open.pool.watchOf(edge)
			switch {
			case w != nil:
				reported = now
				for _, common := range commonOf(&m) {
					w.wake(common.GetUpstreamCluster(), now)
				}
			case now.Sub(reported) > u.strayTime && open.connection.isForUsage():
				go func() { _ = open.connection.Close() }() // which may wait for its client
				return errStray
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// commonOf is what entries of both kinds have.
func commonOf(m *accesslog.StreamAccessLogsMessage) (all []*data.AccessLogCommon) {
	for _, e := range m.GetTcpLogs().GetLogEntry() {
		all = append(all, e.GetCommonProperties())
	}
	for _, e := range m.GetHttpLogs().GetLogEntry() {
		all = append(all, e.GetCommonProperties())
	}
	return all
}
