package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Identity is who an edge is: the URI SAN
// spiffe://crossway/edge/<pool>/<region>/<zone> of its client certificate.
type Identity struct{ Pool, Region, Zone string }

// String is the URI.
func (id Identity) String() string {
	return "spiffe://crossway/edge/" + id.Pool + "/" + id.Region + "/" + id.Zone
}

// IdentityOf reads the identity from a verified client certificate. A
// certificate with another URI, or several, is nobody's.
func IdentityOf(certificate *x509.Certificate) (Identity, error) {
	if n := len(certificate.URIs); n != 1 {
		return Identity{}, fmt.Errorf("client certificate %q has %d URI SANs; an edge's has exactly one, spiffe://crossway/edge/<pool>/<region>/<zone>",
			certificate.Subject.CommonName, n)
	}
	uri := certificate.URIs[0]
	parts := strings.Split(uri.Path, "/")
	if len(parts) == 5 && parts[1] == "edge" {
		id := Identity{Pool: parts[2], Region: parts[3], Zone: parts[4]}
		// Comparing the whole string also refuses ports, queries and escapes.
		if id.complete() && uri.String() == id.String() && url.PathEscape(id.Pool+id.Region+id.Zone) == id.Pool+id.Region+id.Zone {
			return id, nil
		}
	}
	return Identity{}, fmt.Errorf("client certificate's URI SAN %q is not spiffe://crossway/edge/<pool>/<region>/<zone>", uri)
}

func (id Identity) complete() bool { return id.Pool != "" && id.Region != "" && id.Zone != "" }

// identify reads the identity of the caller of a stream. The node in its
// messages is never asked.
func identify(ctx context.Context) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return Identity{}, status.Error(codes.Unauthenticated, "an edge must present a client certificate of the hub's edge CA")
	}
	id, err := IdentityOf(info.State.VerifiedChains[0][0])
	if err != nil {
		return Identity{}, status.Error(codes.PermissionDenied, err.Error())
	}
	return id, nil
}
