package server

import (
	"context"
	"crypto/x509"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/registration"
)

// session is one open stream of either service.
type session struct {
	identity registration.EdgeIdentity
	number   uint64
	// revoked (one place) ends the stream.
	revoked chan error
}

// openSession authenticates and authorizes the caller of a stream. The session is
// registered before it is authorized, so that Reauthorize misses none.
func (s *Server) openSession(ctx context.Context, service string) (*session, error) {
	identity, err := identify(ctx)
	if err != nil {
		s.logRejected(service, err)
		return nil, err
	}
	s.mu.Lock()
	s.streams++
	open := &session{identity: identity, number: s.streams, revoked: make(chan error, 1)}
	s.sessions[open] = struct{}{}
	s.mu.Unlock()
	if err := s.authorize(identity); err != nil {
		s.closeSession(open)
		s.logRejected(service, err)
		return nil, err
	}
	return open, nil
}

func (s *Server) closeSession(open *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, open)
}

func (s *Server) logRejected(service string, err error) {
	s.metrics.rejectedStreams.WithLabelValues(service).Inc()
	s.config.Log.Info("rejected a stream", "service", service, "reason", status.Convert(err).Message())
}

// Reauthorize asks Config.Authorize again about every open stream and ends those
// that it rejects now. Call it after EdgePools changed.
func (s *Server) Reauthorize() {
	s.mu.Lock()
	open := make([]*session, 0, len(s.sessions))
	for one := range s.sessions {
		open = append(open, one)
	}
	s.mu.Unlock()
	for _, one := range open {
		if err := s.authorize(one.identity); err != nil {
			select {
			case one.revoked <- err:
			default:
			}
		}
	}
}

// identify reads who calls from the client certificate. The node in a stream's
// messages is never taken for an identity.
func identify(ctx context.Context) (registration.EdgeIdentity, error) {
	leaf, err := clientCertificate(ctx)
	if err != nil {
		return registration.EdgeIdentity{}, err
	}
	id, err := registration.EdgeIdentityOf(leaf)
	if err != nil {
		return registration.EdgeIdentity{}, status.Errorf(codes.PermissionDenied, "this certificate is no edge's: %v", err)
	}
	return id, nil
}

// clientCertificate is the verified client certificate of a stream.
func clientCertificate(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil, status.Error(codes.Unauthenticated, "an edge must present a client certificate of the hub's edge CA")
	}
	return info.State.VerifiedChains[0][0], nil
}

func (s *Server) authorize(id registration.EdgeIdentity) error {
	if err := s.config.Authorize(id); err != nil {
		return status.Errorf(codes.PermissionDenied, "edge of pool %q, region %q, zone %q: %v", id.Pool, id.Region, id.Zone, err)
	}
	return nil
}
