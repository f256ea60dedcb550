package server

import (
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/durationpb"
)

// LoadReport is what one edge sent and counted. It has only clusters that the edge
// has, with or without traffic.
type LoadReport struct{ Clusters []ClusterLoad }

// ClusterLoad is one cluster's part of a LoadReport.
type ClusterLoad struct {
	// Cluster is its name, Assignment its EDS service name (or empty).
	Cluster, Assignment string
	// Interval is the time in which the requests were counted: the divisor.
	Interval time.Duration
	// Dropped counts the requests answered 503 without an endpoint being asked.
	// Drops are those of them that have a category (drop_overloads), by category.
	Dropped uint64
	Drops   []Drop
	// Localities have at least one request each.
	Localities []LocalityLoad
}

// Drop counts the dropped requests of one category.
type Drop struct {
	Category string
	Requests uint64
}

// LocalityLoad counts the requests to one locality. A failed connect is an Error
// that was not Issued. Requests that found no healthy endpoint are not counted
// anywhere: while all endpoints are down there is no demand to be seen.
type LocalityLoad struct {
	Region, Zone, SubZone              string
	Issued, Success, Error, InProgress uint64
}

// loadServer keeps the service's method out of Server's.
type loadServer struct {
	loadstats.UnimplementedLoadReportingServiceServer
	*Server
}

func (s *Server) loadReporting() loadstats.LoadReportingServiceServer { return loadServer{Server: s} }

// StreamLoadStats receives the load reports of one edge. It is called by gRPC.
func (l loadServer) StreamLoadStats(g loadstats.LoadReportingService_StreamLoadStatsServer) error {
	return l.serve(g.Context(), load, func(open *session, ended chan<- error) {
		go func() { ended <- l.collect(g, open) }()
	})
}

func (l loadServer) collect(g loadstats.LoadReportingService_StreamLoadStatsServer, open *session) error {
	silent := open.endAfter(firstRequestTimeout, "no report within %s", firstRequestTimeout)
	defer silent.Stop()
	// More reports than were asked for wait.
	reports := rate.NewLimiter(rate.Every(l.config.ReportInterval*2/3), 5)
	var edge Edge
	for {
		var r loadstats.LoadStatsRequest
		err := open.next(g, &r, func() (err error) {
			if edge.Stream != 0 {
				l.report(edge, &r)
				return nil
			}
			// The load counts for the place in the certificate. The node's locality is not
			// read, because the edge may choose it.
			if edge, err = l.name(open, r.GetNode().GetId()); err != nil {
				return err
			}
			silent.Stop()
			// After a reconnect the first message may have counts already.
			if len(r.ClusterStats) > 0 {
				l.report(edge, &r)
			}
			return g.Send(&loadstats.LoadStatsResponse{
				SendAllClusters: true, LoadReportingInterval: durationpb.New(l.config.ReportInterval),
			})
		})
		if err != nil {
			return err
		}
		if err := reports.Wait(g.Context()); err != nil {
			return err
		}
	}
}

func (l loadServer) report(edge Edge, r *loadstats.LoadStatsRequest) {
	l.metrics.loadReports.WithLabelValues(edge.Identity.Pool).Inc()
	if l.observer.Load != nil {
		l.observer.Load(edge, loadReport(r))
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
