package server

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// DeltaAggregatedResources serves one edge. It is called by gRPC.
func (s *Server) DeltaAggregatedResources(g deltaStream) error {
	return s.serve(g.Context(), configuration, func(open *session, ended chan<- error) {
		go func() { ended <- s.receive(g, open, ended) }()
	})
}

// send sends the responses that are due until the stream ends.
func (s *Server) send(g deltaStream, open *session, st *stream) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stuck := open.endAfter(time.Hour, "edge %q has read nothing for %s", st.edge.Node, sendTimeout)
	stuck.Stop()
	defer stuck.Stop()
	for {
		r, encoded, wait, err := st.next(g, s.seal)
		if err != nil {
			return err
		}
		if r != nil {
			stuck.Reset(sendTimeout)
			err := g.SendMsg(encoded)
			stuck.Stop()
			if err != nil {
				return err
			}
			s.countSent(st.edge, r)
			continue
		}
		if wait <= 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-st.changed:
		case <-timer.C:
		case <-g.Context().Done():
			return context.Cause(g.Context())
		}
	}
}

// next is the next response, and its encoding; or how long to wait for one.
func (st *stream) next(g deltaStream, seal seal) (r *discovery.DeltaDiscoveryResponse, encoded *grpc.PreparedMsg, wait time.Duration, err error) {
	select {
	case st.pool.quota.response <- struct{}{}:
		defer func() { <-st.pool.quota.response }()
	case <-g.Context().Done():
		return nil, nil, 0, context.Cause(g.Context())
	}
	st.pool.lock()
	r, wait = st.state.Next(time.Now())
	st.pool.unlock()
	if r == nil {
		return nil, nil, wait, nil
	}
	encoded = &grpc.PreparedMsg{}
	return r, encoded, 0, encoded.Encode(g, seal.onWire(st.edge.Identity.Region, r))
}

// countSent counts a response that was sent. At debug level the log says which
// resources were sent and, in report, which were ACKed, each with its time: the
// cost of a change on its way is read from there.
func (s *Server) countSent(edge Edge, r *discovery.DeltaDiscoveryResponse) {
	k, ok := delta.KindOf(r.TypeUrl)
	if !ok {
		return
	}
	s.metrics.pushes.WithLabelValues(k.String()).Inc()
	if log := s.config.Log.V(1); log.Enabled() {
		versions := make([]string, 0, len(r.Resources))
		for _, one := range r.Resources {
			versions = append(versions, one.Name+" "+one.Version)
		}
		log.Info("pushed", "node", edge.Node, "type", k.String(), "resources", versions, "removed", r.RemovedResources)
	}
}

// receive processes requests and notifies the observer, all from this goroutine.
// The first request says which edge it is; then responses are sent, too.
func (s *Server) receive(g deltaStream, open *session, ended chan<- error) error {
	silent := open.endAfter(firstRequestTimeout, "no request within %s", firstRequestTimeout)
	defer silent.Stop()
	var st *stream
	defer func() {
		if st != nil {
			s.disconnected(st)
		}
	}()
	for {
		var r discovery.DeltaDiscoveryRequest
		err := open.next(g, &r, func() error {
			if st == nil {
				edge, err := s.name(open, r.GetNode().GetId())
				if err != nil {
					return err
				}
				silent.Stop()
				if st, err = s.connected(edge, open); err != nil {
					return err
				}
				go func() { ended <- s.send(g, open, st) }()
			}
			if k, ok := delta.KindOf(r.TypeUrl); ok {
				s.request(open, st, k, &r)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func (s *Server) connected(edge Edge, open *session) (*stream, error) {
	if s.observer.Connected != nil {
		s.observer.Connected(edge)
	}
	st := open.pool.open(open, edge, s.config.WarmTimeout)
	if st == nil {
		if s.observer.Disconnected != nil {
			s.observer.Disconnected(edge)
		}
		return nil, replaced(edge)
	}
	s.metrics.connected.WithLabelValues(edge.Identity.Pool).Inc()
	s.limited(open.pool.quota.log).Info("edge connected", "node", edge.Node, "pool", edge.Identity.Pool, "zone", edge.Identity.Zone, "stream", edge.Stream)
	return st, nil
}

func (s *Server) disconnected(st *stream) {
	edge := st.edge
	st.pool.close(st)
	s.metrics.connected.WithLabelValues(edge.Identity.Pool).Dec()
	s.limited(st.pool.quota.log).Info("edge disconnected", "node", edge.Node, "pool", edge.Identity.Pool, "zone", edge.Identity.Zone, "stream", edge.Stream)
	if s.observer.Disconnected != nil {
		s.observer.Disconnected(edge)
	}
}

// request processes one request.
func (s *Server) request(open *session, st *stream, k delta.Kind, r *discovery.DeltaDiscoveryRequest) {
	began := time.Now()
	r.InitialResourceVersions = s.seal.genuine(st.edge.Identity.Region, r.TypeUrl, r.InitialResourceVersions)
	open.spent += time.Since(began)
	// Only this goroutine starts a kind, so this read needs no lock.
	if s.observer.InitialVersions != nil && !k.IsRuntime() && !st.state.Started(k) {
		st.pool.lock()
		began := time.Now()
		known := st.state.Known(k, r.InitialResourceVersions)
		st.pool.unlock()
		s.observer.InitialVersions(st.edge, k.TypeURL(), known)
		open.spent += time.Since(began)
	}
	st.pool.lock()
	began = time.Now()
	received := st.state.Receive(k, r)
	st.pool.changed = st.pool.changed || received.Progress
	open.spent += time.Since(began)
	st.pool.unlock()
	st.changed.Set()
	s.report(st, k, received, r)
}

// report counts, logs and passes on what a request changed.
func (s *Server) report(st *stream, k delta.Kind, received delta.Received, r *discovery.DeltaDiscoveryRequest) {
	edge := st.edge
	if received.Answer {
		count := s.metrics.acks
		if r.ErrorDetail != nil {
			count = s.metrics.nacks
		}
		count.WithLabelValues(k.String()).Inc()
		s.metrics.pushToAck.WithLabelValues(k.String()).Observe(time.Since(received.SentAt).Seconds())
	}
	if log := s.config.Log.V(1); log.Enabled() && len(received.Acked) > 0 {
		versions := make([]string, 0, len(received.Acked))
		for _, one := range received.Acked {
			versions = append(versions, one.Name+" "+one.Version)
		}
		log.Info("acked", "node", edge.Node, "type", k.String(), "resources", versions)
	}
	if received.Answer && r.ErrorDetail != nil {
		message := r.ErrorDetail.Message
		s.limited(st.pool.quota.log).Info("edge NACKed a response", "node", edge.Node, "pool", edge.Identity.Pool, "type", k.String(),
			"message", message[:min(len(message), maxLoggedMessage)])
	}
	if len(received.Acked) > 0 && s.observer.Acked != nil && !k.IsRuntime() {
		s.observer.Acked(edge, k.TypeURL(), received.Acked)
	}
	if s.observer.Nacked != nil && !k.IsRuntime() {
		for _, nack := range received.Nacked {
			s.observer.Nacked(edge, nack)
		}
	}
}

// maxLoggedMessage bounds how much of an edge's message is logged.
const maxLoggedMessage = 2048
