package server

import (
	"context"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/registration"
)

// service is what a stream is for.
type service string

const (
	configuration service = "ads"
	load          service = "load"
	usage         service = "usage"
)

// session is one open stream of any service.
type session struct {
	service    service
	identity   registration.EdgeIdentity
	number     uint64
	connection *edgeConnection
	pool       *pool
	count      *atomic.Int32 // of the pool's sessions, this one among them
	// cut (one place) ends the stream.
	cut chan error
	// released: it may claim nothing any more. watch is of a session of load reports.
	// Both are guarded by pool.claimsMu.
	released bool
	watch    *watch

	// Of the goroutine that receives:
	large int           // requests beyond smallRequest
	spent time.Duration // on the last request
}

// end ends the stream, for the first reason that is given.
func (open *session) end(reason error) {
	select {
	case open.cut <- reason:
	default:
	}
}

// endAfter ends the stream after a time, unless the timer is stopped.
func (open *session) endAfter(d time.Duration, format string, args ...any) *time.Timer {
	return time.AfterFunc(d, func() { open.end(status.Errorf(codes.DeadlineExceeded, format, args...)) })
}

// serve opens a session for a stream and runs it. run ends with the stream's
// context, which ends when serve returns: a Send to a stuck edge ends in no other
// way.
func (s *Server) serve(ctx context.Context, what service, run func(open *session, ended chan<- error)) error {
	open, err := s.openSession(ctx, what)
	if err != nil {
		s.reject(ctx, what, err)
		return err
	}
	defer s.closeSession(open)
	ended := make(chan error, 2)
	run(open, ended)
	select {
	case err = <-ended:
	case err = <-open.cut:
		s.reject(ctx, what, err)
	case <-ctx.Done():
		err = status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// openSession authenticates and authorizes the caller of a stream. The session is
// registered before it is authorized, so that Reauthorize misses none.
func (s *Server) openSession(ctx context.Context, what service) (*session, error) {
	identity, connection, err := identify(ctx)
	if err != nil {
		return nil, err
	}
	connection.opens(what)
	s.mu.Lock()
	s.streams++
	open := &session{service: what, identity: identity, number: s.streams, connection: connection, cut: make(chan error, 1)}
	s.sessions[open] = struct{}{}
	s.mu.Unlock()
	if err = s.authorize(identity); err == nil {
		err = s.admit(ctx, open)
	}
	if err != nil {
		s.closeSession(open)
		return nil, err
	}
	return open, nil
}

// admit waits until the pool may open another stream.
func (s *Server) admit(ctx context.Context, open *session) error {
	p := s.pool(open.identity.Pool)
	sessions, limit, limiter := &p.sessions, maxStreams(s.config.MaxEdges), p.quota.streams
	if open.service == usage {
		sessions, limit, limiter = &p.usages, maxUsageStreams(s.config.MaxEdges), p.quota.usageStreams
	}
	if int(sessions.Add(1)) > limit {
		sessions.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "the edges of pool %q have too many streams", p.name)
	}
	open.pool, open.count = p, sessions
	ctx, cancel := context.WithTimeout(ctx, streamWait)
	defer cancel()
	if limiter.Wait(ctx) != nil {
		return status.Errorf(codes.ResourceExhausted, "the edges of pool %q open too many streams", p.name)
	}
	return nil
}

// name takes the name that an edge gives itself in its first request. A newer
// stream of an edge ends the older one of the same service, whose connection may
// be dead without the hub having noticed yet.
func (s *Server) name(open *session, node string) (Edge, error) {
	edge, err := named(open, node)
	if err != nil {
		return edge, err
	}
	if err := s.wasMoved(open, edge); err != nil {
		return edge, err
	}
	older, err := open.pool.claim(open, edge)
	if err != nil {
		return edge, err
	}
	if older != nil {
		older.end(replaced(edge))
	}
	return edge, nil
}

// named is the edge of a session, by the name that it gives itself.
func named(open *session, node string) (Edge, error) {
	leaf := open.connection.leaf
	edge := Edge{Node: node, Source: listener.SourceOf(open.connection.RemoteAddr()).Addr().String(), Identity: open.identity, Stream: open.number, Since: time.Now(),
		CA: leaf.Issuer.CommonName, CertificateBegin: leaf.NotBefore, CertificateEnd: leaf.NotAfter}
	printable := strings.IndexFunc(node, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
	if node == "" || len(node) > maxNodeLength || !printable {
		return edge, status.Errorf(codes.InvalidArgument, "node.id: use 1 to %d printable characters", maxNodeLength)
	}
	return edge, nil
}

func replaced(edge Edge) error {
	return status.Errorf(codes.Aborted, "edge %q of zone %q has a newer stream; every edge needs a node.id of its own", edge.Node, edge.Identity.Zone)
}

// maxNodeLength is as long as the name of a pod.
const maxNodeLength = 253

func (s *Server) closeSession(open *session) {
	s.mu.Lock()
	delete(s.sessions, open)
	s.mu.Unlock()
	if open.pool != nil {
		open.count.Add(-1)
		open.pool.release(open)
	}
}

// reject notes that a stream is rejected, and slows its client down.
func (s *Server) reject(ctx context.Context, what service, err error) {
	s.metrics.rejectedStreams.WithLabelValues(string(what)).Inc()
	s.limited(s.rejections).Info("rejected a stream", "service", what, "reason", status.Convert(err).Message())
	timer := time.NewTimer(refusalDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// limited is the log for lines that edges cause.
func (s *Server) limited(limiter *rate.Limiter) logr.Logger {
	if limiter.Allow() {
		return s.config.Log
	}
	s.metrics.omittedLines.Inc()
	return logr.Discard()
}

// Reauthorize asks Config.Authorize again about every open stream and ends those
// that it rejects now, and then their connections. Call it after EdgePools changed.
func (s *Server) Reauthorize() {
	s.mu.Lock()
	open := make([]*session, 0, len(s.sessions))
	for one := range s.sessions {
		open = append(open, one)
	}
	s.mu.Unlock()
	for _, one := range open {
		if err := s.authorize(one.identity); err != nil {
			one.end(err)
		}
	}
	s.connections.reauthorize()
}

// identify reads who calls from the client certificate. The node in a stream's
// messages is never taken for an identity.
func identify(ctx context.Context) (registration.EdgeIdentity, *edgeConnection, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return registration.EdgeIdentity{}, nil, status.Error(codes.Unauthenticated, "no peer")
	}
	auth, ok := p.AuthInfo.(edgeAuth)
	if !ok || len(auth.State.VerifiedChains) == 0 {
		return registration.EdgeIdentity{}, nil, status.Error(codes.Unauthenticated, "an edge must present a client certificate of the hub's edge CA")
	}
	id, err := registration.EdgeIdentityOf(auth.State.VerifiedChains[0][0])
	if err != nil {
		return id, nil, status.Errorf(codes.PermissionDenied, "this certificate is no edge's: %v", err)
	}
	return id, auth.connection, nil
}

func (s *Server) authorize(id registration.EdgeIdentity) error {
	if err := s.config.Authorize(id); err != nil {
		return status.Errorf(codes.PermissionDenied, "edge of pool %q, region %q, zone %q: %v", id.Pool, id.Region, id.Zone, err)
	}
	return nil
}
