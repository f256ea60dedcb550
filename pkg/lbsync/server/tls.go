package server

import (
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// NewGRPCServer is a gRPC server for edges: TLS 1.3, a client certificate of
// base.ClientCAs is required, and the connection ends when that certificate does.
// The server's certificates come from base, or from what its GetConfigForClient
// returns.
func NewGRPCServer(base *tls.Config, options ...grpc.ServerOption) *grpc.Server {
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
		grpc.Creds(expiringCredentials{credentials.NewTLS(strict)}),
		// Envoy pings each 5 s. gRPC's default allows one in 5 min and then hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// An edge whose machine vanished must not count as connected for long.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second}),
		// A first request has the versions of everything that the edge has, a load
		// report has all clusters.
		grpc.MaxRecvMsgSize(64 << 20),
	}, options...)...)
}

func strictTLS(base *tls.Config) *tls.Config {
	strict := base.Clone()
	strict.MinVersion = tls.VersionTLS13
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	strict.NextProtos = []string{"h2"}
	return strict
}

// expiringCredentials close a connection when its client certificate expires.
// Ending the stream alone would not do: the edge would open the next one on the
// same connection, whose handshake is long over. On a new connection it presents
// the certificate that it has by then.
type expiringCredentials struct {
	credentials.TransportCredentials
}

func (e expiringCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return conn, auth, nil // openSession rejects it
	}
	remaining := time.Until(info.State.PeerCertificates[0].NotAfter)
	return &expiringConn{Conn: conn, expiry: time.AfterFunc(remaining, func() { _ = conn.Close() })}, auth, nil
}

// Clone belongs to the interface.
func (e expiringCredentials) Clone() credentials.TransportCredentials {
	return expiringCredentials{e.TransportCredentials.Clone()}
}

// expiringConn is a connection that expiry closes.
type expiringConn struct {
	net.Conn
	expiry *time.Timer
}

func (c *expiringConn) Close() error {
	c.expiry.Stop()
	return c.Conn.Close()
}
