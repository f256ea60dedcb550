package server

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/status"
)

type wire = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// DeltaAggregatedResources serves one edge. It is called by gRPC.
func (s *Server) DeltaAggregatedResources(g wire) error {
	open, err := s.admit(g.Context(), "ads")
	if err != nil {
		return err
	}
	defer s.leave(open)
	first, err := g.Recv()
	if err != nil {
		return err
	}
	edge := Edge{Node: first.GetNode().GetId(), Identity: open.identity, Stream: open.number}
	st := newStream(edge, s.pool(open.identity.Pool), s.config.WarmTimeout)
	st.pool.attach(st)
	// Both end with the stream's context, which ends when this returns: a Send to
	// a stuck edge can be left only so.
	ended := make(chan error, 2)
	go func() { ended <- s.receive(g, st, first) }()
	go func() { ended <- s.send(g, st) }()
	select {
	case err = <-ended:
	case err = <-open.revoked:
		s.refuse("ads", err)
	case <-g.Context().Done():
		err = status.FromContextError(g.Context().Err()).Err()
	}
	return err
}

// send sends what the order says until the stream ends.
func (s *Server) send(g wire, st *stream) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		st.pool.mu.Lock()
		r, wait := st.next(time.Now())
		st.pool.mu.Unlock()
		if r != nil {
			if err := g.Send(r); err != nil {
				return err
			}
			s.sent(st.edge, r)
			continue
		}
		if wait <= 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-st.kick:
		case <-timer.C:
		case <-g.Context().Done():
			return context.Cause(g.Context())
		}
	}
}

// sent counts a response that has gone to the wire. At debug level the log says
// which resources left and, in tell, which were ACKed, each with its time: what
// a change costs on its way is read from there.
func (s *Server) sent(edge Edge, r *discovery.DeltaDiscoveryResponse) {
	k, known := kindOf(r.TypeUrl)
	if !known {
		return
	}
	s.metrics.pushes.WithLabelValues(kindNames[k]).Inc()
	if log := s.config.Log.V(1); log.Enabled() {
		versions := make([]string, 0, len(r.Resources))
		for _, one := range r.Resources {
			versions = append(versions, one.Name+" "+one.Version)
		}
		log.Info("pushed", "node", edge.Node, "type", kindNames[k], "resources", versions, "removed", r.RemovedResources)
	}
}

// receive takes in requests and tells the observer, all from this goroutine.
func (s *Server) receive(g wire, st *stream, r *discovery.DeltaDiscoveryRequest) error {
	edge, observer := st.edge, s.config.Observer
	log := s.config.Log.WithValues("node", edge.Node, "pool", edge.Identity.Pool, "zone", edge.Identity.Zone, "stream", edge.Stream)
	connected := s.metrics.connected.WithLabelValues(edge.Identity.Pool)
	connected.Inc()
	log.Info("edge connected")
	if observer.Connected != nil {
		observer.Connected(edge)
	}
	s.progress(edge.Identity.Pool)
	defer func() {
		st.pool.detach(st)
		connected.Dec()
		log.Info("edge disconnected")
		if observer.Disconnected != nil {
			observer.Disconnected(edge)
		}
		s.progress(edge.Identity.Pool)
	}()
	for {
		if k, known := kindOf(r.TypeUrl); known {
			s.request(st, k, r)
		}
		var err error
		if r, err = g.Recv(); err != nil {
			return err
		}
	}
}

// request takes in one request: the answer to a response, a change of what is
// asked for, or both.
func (s *Server) request(st *stream, k kind, r *discovery.DeltaDiscoveryRequest) {
	// Only this goroutine starts a kind.
	first := !st.kinds[k].started
	if first && s.config.Observer.InitialVersions != nil {
		s.config.Observer.InitialVersions(st.edge, typeURLs[k], r.InitialResourceVersions)
	}
	st.pool.mu.Lock()
	var v verdict
	if r.ResponseNonce != "" {
		v = st.answer(k, r.ResponseNonce, r.ErrorDetail)
	}
	if first || len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
		st.subscribe(k, r)
		if first {
			v.nacked = append(v.nacked, st.recalled(k)...)
		}
	}
	progress := st.settle() || len(v.nacked) > 0
	st.pool.mu.Unlock()
	st.wake()
	s.tell(st.edge, k, v, r)
	if progress {
		s.progress(st.edge.Identity.Pool)
	}
}

func (s *Server) tell(edge Edge, k kind, v verdict, r *discovery.DeltaDiscoveryRequest) {
	if v.known {
		count := s.metrics.acks
		if r.ErrorDetail != nil {
			count = s.metrics.nacks
		}
		count.WithLabelValues(kindNames[k]).Inc()
		s.metrics.pushToAck.WithLabelValues(kindNames[k]).Observe(time.Since(v.sentAt).Seconds())
	}
	if log := s.config.Log.V(1); log.Enabled() && len(v.acked) > 0 {
		versions := make([]string, 0, len(v.acked))
		for _, one := range v.acked {
			versions = append(versions, one.Name+" "+one.Version)
		}
		log.Info("acked", "node", edge.Node, "type", kindNames[k], "resources", versions)
	}
	if r.ErrorDetail != nil {
		s.config.Log.Info("edge refused a response", "node", edge.Node, "pool", edge.Identity.Pool, "type", kindNames[k], "message", r.ErrorDetail.Message)
	}
	if len(v.acked) > 0 && s.config.Observer.Acked != nil {
		s.config.Observer.Acked(edge, typeURLs[k], v.acked)
	}
	if s.config.Observer.Nacked != nil {
		for _, refusal := range v.nacked {
			s.config.Observer.Nacked(edge, refusal)
		}
	}
}
