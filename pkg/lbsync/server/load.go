package server

import (
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// loadServer keeps the service's method off Server's.
type loadServer struct {
	loadstats.UnimplementedLoadReportingServiceServer
	*Server
}

func (s *Server) loadReporting() loadstats.LoadReportingServiceServer { return loadServer{Server: s} }

// StreamLoadStats takes the load reports of one edge. It is called by gRPC.
func (l loadServer) StreamLoadStats(g loadstats.LoadReportingService_StreamLoadStatsServer) error {
	open, err := l.admit(g.Context(), "load")
	if err != nil {
		return err
	}
	defer l.leave(open)
	ended := make(chan error, 1)
	go func() { ended <- l.collect(g, open) }()
	select {
	case err = <-ended:
	case err = <-open.revoked:
		l.refuse("load", err)
	case <-g.Context().Done():
		err = status.FromContextError(g.Context().Err()).Err()
	}
	return err
}

func (l loadServer) collect(g loadstats.LoadReportingService_StreamLoadStatsServer, open *session) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	// Which place the load is for says the certificate; the node's locality,
	// which the edge may choose, is not read.
	edge := Edge{Node: first.GetNode().GetId(), Identity: open.identity, Stream: open.number}
	err = g.Send(&loadstats.LoadStatsResponse{
		SendAllClusters: true, LoadReportingInterval: durationpb.New(l.config.ReportInterval),
	})
	if err != nil {
		return err
	}
	// After a reconnect the first message may have counts already.
	if len(first.ClusterStats) > 0 {
		l.report(edge, first)
	}
	for {
		r, err := g.Recv()
		if err != nil {
			return err
		}
		l.report(edge, r)
	}
}

func (l loadServer) report(edge Edge, r *loadstats.LoadStatsRequest) {
	l.metrics.loadReports.WithLabelValues(edge.Identity.Pool).Inc()
	if l.config.Observer.Load != nil {
		l.config.Observer.Load(edge, loadReport(r))
	}
}

func loadReport(r *loadstats.LoadStatsRequest) LoadReport {
	report := LoadReport{Clusters: make([]ClusterLoad, 0, len(r.ClusterStats))}
	for _, c := range r.ClusterStats {
		report.Clusters = append(report.Clusters, clusterLoad(c))
	}
	return report
}

func clusterLoad(c *endpoint.ClusterStats) ClusterLoad {
	load := ClusterLoad{
		Cluster: c.ClusterName, Assignment: c.ClusterServiceName,
		Interval: max(0, c.LoadReportInterval.AsDuration()).Round(time.Microsecond), Dropped: c.TotalDroppedRequests,
	}
	for _, d := range c.DroppedRequests {
		load.Drops = append(load.Drops, Drop{Category: d.Category, Requests: d.DroppedCount})
	}
	for _, u := range c.UpstreamLocalityStats {
		load.Localities = append(load.Localities, LocalityLoad{
			Region: u.GetLocality().GetRegion(), Zone: u.GetLocality().GetZone(), SubZone: u.GetLocality().GetSubZone(),
			Issued: u.TotalIssuedRequests, Success: u.TotalSuccessfulRequests,
			Error: u.TotalErrorRequests, InProgress: u.TotalRequestsInProgress,
		})
	}
	return load
}
