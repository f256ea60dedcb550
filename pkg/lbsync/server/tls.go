package server

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"crossway.dev/crossway/pkg/listener"
)

// NewGRPCServer is a gRPC server for edges: TLS 1.3, a client certificate of
// base.ClientCAs is required, and the connection ends when that certificate does.
// The server's certificates come from base, or from what its GetConfigForClient
// returns. Serve with a socket of listener.Listen.
func (s *Server) NewGRPCServer(base *tls.Config, options ...grpc.ServerOption) *grpc.Server {
	strict := strictTLS(base)
	if perClient := base.GetConfigForClient; perClient != nil {
		strict.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := perClient(hello)
			if c == nil || err != nil {
				return nil, err
			}
			return strictTLS(c), nil
		}
	}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(edgeCredentials{credentials.NewTLS(strict), s}),
		// Envoy pings each 5 s. gRPC's default allows one in 5 min and then hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// An edge whose machine vanished must not count as connected for long. Who has no
		// stream is no edge.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second, MaxConnectionIdle: time.Minute}),
		grpc.ConnectionTimeout(5 * time.Second),
		// An Envoy has two or three streams, and for a moment those that it has just lost.
		grpc.MaxConcurrentStreams(8),
		grpc.InTapHandle(mayOpen),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.ForceServerCodecV2(newFrameCodec()),
	}, options...)...)
}

func strictTLS(base *tls.Config) *tls.Config {
	strict := base.Clone()
	strict.MinVersion = tls.VersionTLS13
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	strict.NextProtos = []string{"h2"}
	return strict
}

// edgeCredentials count connections, and close one when its client certificate
// expires. Ending the stream alone would not do: the edge would open the next one
// on the same connection, whose handshake is long over. On a new connection it
// presents the certificate that it has by then.
type edgeCredentials struct {
	credentials.TransportCredentials
	server *Server
}

func (e edgeCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		e.server.refuseHandshake(raw, err)
		return nil, nil, err
	}
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return conn, auth, nil // openSession rejects it
	}
	if pending, ok := raw.(*listener.Conn); ok {
		pending.Established()
	}
	edge, err := e.server.connections.add(conn, info)
	if err != nil {
		return nil, nil, err
	}
	return edge, edgeAuth{info, edge}, nil
}

// Clone belongs to the interface.
func (e edgeCredentials) Clone() credentials.TransportCredentials {
	return edgeCredentials{e.TransportCredentials.Clone(), e.server}
}

// refuseHandshake tells whose certificate no CA of the hub's has signed, or has ended:
// an edge that was away while the CA was rotated, for instance. Who presents none, or is
// no TLS client, is told nowhere.
func (s *Server) refuseHandshake(raw net.Conn, err error) {
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) || len(unverified.UnverifiedCertificates) == 0 {
		return
	}
	leaf := unverified.UnverifiedCertificates[0]
	s.metrics.refusedCertificates.Inc()
	s.limited(s.rejections).Info("refused a certificate; if it is an edge's, join it again: crossway token create --edge <pool> --zone <zone>",
		"from", raw.RemoteAddr().String(), "certificate", short(leaf.Subject.String()), "ca", short(leaf.Issuer.CommonName), "reason", unverified.Err.Error())
}

// short bounds what somebody without a good certificate writes into the log.
func short(text string) string { return text[:min(len(text), 200)] }
