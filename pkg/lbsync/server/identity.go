package server

import (
	"context"
	"crypto/x509"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Identity is who an edge is: its client certificate says so, and nothing else.
// Its fields are those of registration.EdgeIdentity, to convert from.
type Identity struct{ Pool, Region, Zone string }

// leafOf is the verified client certificate of a stream. The node in a stream's
// messages is never asked who it is.
func leafOf(ctx context.Context) (*x509.Certificate, error) {
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

// identify reads the identity of the caller of a stream.
func (s *Server) identify(ctx context.Context) (Identity, error) {
	leaf, err := leafOf(ctx)
	if err != nil {
		return Identity{}, err
	}
	id, err := s.config.Identify(leaf)
	if err != nil {
		return Identity{}, status.Errorf(codes.PermissionDenied, "this certificate is no edge's: %v", err)
	}
	return id, nil
}

func (s *Server) authorize(id Identity) error {
	if err := s.config.Authorize(id); err != nil {
		return status.Errorf(codes.PermissionDenied, "edge of pool %q, region %q, zone %q: %v", id.Pool, id.Region, id.Zone, err)
	}
	return nil
}
