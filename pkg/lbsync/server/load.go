package server

import (
	"context"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"golang.org/x/time/rate"
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

type loadStream = loadstats.LoadReportingService_StreamLoadStatsServer

// StreamLoadStats receives the load reports of one edge. It is called by gRPC.
func (l loadServer) StreamLoadStats(g loadStream) error {
	return l.serve(g.Context(), load, func(open *session, ended chan<- error) {
		go func() { ended <- l.collect(g, open, ended) }()
	})
}

// collect receives reports. The first request says which edge it is; then the edge is
// told what to report.
func (l loadServer) collect(g loadStream, open *session, ended chan<- error) error {
	silent := open.endAfter(firstRequestTimeout, "no report within %s", firstRequestTimeout)
	defer silent.Stop()
	// More reports than were asked for wait.
	reports := rate.NewLimiter(rate.Every(l.config.ReportInterval*2/3), 5)
	watch := newWatch(l.config.ReportInterval)
	var edge Edge
	for {
		var r loadstats.LoadStatsRequest
		err := open.next(g, &r, func() (err error) {
			first := edge.Stream == 0
			if first {
				// The load counts for the place in the certificate. The node's locality is not
				// read, because the edge may choose it.
				if edge, err = l.name(open, r.GetNode().GetId()); err != nil {
					return err
				}
				silent.Stop()
				open.pool.setWatch(open, watch)
				go func() { ended <- l.ask(g, open, watch) }()
			}
			l.observe(&r, open, watch)
			if !first || len(r.ClusterStats) > 0 { // after a reconnect the first message may have counts already
				l.report(edge, &r)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := reports.Wait(g.Context()); err != nil {
			return err
		}
	}
}

// ask sends what the edge is to report, whenever that changes.
func (l loadServer) ask(g loadStream, open *session, w *watch) error {
	stuck := open.endAfter(time.Hour, "an edge has read nothing for %s", sendTimeout)
	stuck.Stop()
	defer stuck.Stop()
	for {
		select {
		case <-w.changed:
		case <-g.Context().Done():
			return context.Cause(g.Context())
		}
		if r := w.next(); r != nil {
			stuck.Reset(sendTimeout)
			err := g.Send(r)
			stuck.Stop()
			if err != nil {
				return err
			}
		}
	}
}

func (l loadServer) report(edge Edge, r *loadstats.LoadStatsRequest) {
	l.metrics.loadReports.WithLabelValues(edge.Identity.Pool).Inc()
	if l.observer.Load != nil {
		l.observer.Load(edge, loadReport(r))
	}
}

// observe has the edge report what is used, as its report and its pool's clusters say.
func (l loadServer) observe(r *loadstats.LoadStatsRequest, open *session, w *watch) {
	sizes, changes := open.pool.clusterSizes()
	now := time.Now()
	w.setSizes(sizes, changes, now)
	w.observe(r.ClusterStats, now)
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
