package server

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/lbsync/server/delta"
)

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// DeltaAggregatedResources serves one edge. It is called by gRPC.
func (s *Server) DeltaAggregatedResources(g deltaStream) error {
	open, err := s.openSession(g.Context(), "ads")
	if err != nil {
		return err
	}
	defer s.closeSession(open)
	first, err := g.Recv()
	if err != nil {
		return err
	}
	edge := Edge{Node: first.GetNode().GetId(), Identity: open.identity, Stream: open.number}
	st := s.pool(open.identity.Pool).open(edge, s.config.WarmTimeout)
	// Both goroutines end with the stream's context, which ends when this returns:
	// a Send to a stuck edge ends in no other way.
	ended := make(chan error, 2)
	go func() { ended <- s.receive(g, st, first) }()
	go func() { ended <- s.send(g, st) }()
	select {
	case err = <-ended:
	case err = <-open.revoked:
		s.logRejected("ads", err)
	case <-g.Context().Done():
		err = status.FromContextError(g.Context().Err()).Err()
	}
	return err
}

// send sends the responses that are due until the stream ends.
func (s *Server) send(g deltaStream, st *stream) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		st.pool.mu.Lock()
		r, wait := st.state.Next(time.Now())
		st.pool.mu.Unlock()
		if r != nil {
			if err := g.Send(r); err != nil {
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
func (s *Server) receive(g deltaStream, st *stream, r *discovery.DeltaDiscoveryRequest) error {
	edge, observer := st.edge, s.observer
	log := s.config.Log.WithValues("node", edge.Node, "pool", edge.Identity.Pool, "zone", edge.Identity.Zone, "stream", edge.Stream)
	connected := s.metrics.connected.WithLabelValues(edge.Identity.Pool)
	connected.Inc()
	log.Info("edge connected")
	if observer.Connected != nil {
		observer.Connected(edge)
	}
	s.notifyProgress(edge.Identity.Pool)
	defer func() {
		st.pool.close(st)
		connected.Dec()
		log.Info("edge disconnected")
		if observer.Disconnected != nil {
			observer.Disconnected(edge)
		}
		s.notifyProgress(edge.Identity.Pool)
	}()
	for {
		if k, ok := delta.KindOf(r.TypeUrl); ok {
			s.request(st, k, r)
		}
		var err error
		if r, err = g.Recv(); err != nil {
			return err
		}
	}
}

// request processes one request.
func (s *Server) request(st *stream, k delta.Kind, r *discovery.DeltaDiscoveryRequest) {
	// Only this goroutine starts a kind, so this read needs no lock.
	if s.observer.InitialVersions != nil && !st.state.Started(k) {
		s.observer.InitialVersions(st.edge, k.TypeURL(), r.InitialResourceVersions)
	}
	st.pool.mu.Lock()
	received := st.state.Receive(k, r)
	st.pool.mu.Unlock()
	st.changed.Set()
	s.report(st.edge, k, received, r)
	if received.Progress {
		s.notifyProgress(st.edge.Identity.Pool)
	}
}

// report counts, logs and passes on what a request changed.
func (s *Server) report(edge Edge, k delta.Kind, received delta.Received, r *discovery.DeltaDiscoveryRequest) {
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
	if r.ErrorDetail != nil {
		s.config.Log.Info("edge NACKed a response", "node", edge.Node, "pool", edge.Identity.Pool, "type", k.String(), "message", r.ErrorDetail.Message)
	}
	if len(received.Acked) > 0 && s.observer.Acked != nil {
		s.observer.Acked(edge, k.TypeURL(), received.Acked)
	}
	if s.observer.Nacked != nil {
		for _, nack := range received.Nacked {
			s.observer.Nacked(edge, nack)
		}
	}
}
