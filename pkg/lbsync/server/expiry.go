package server

import (
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// expiring ends a connection when its client certificate ends. Ending a stream
// would not do: the edge would open the next one on the same connection, whose
// handshake is long over. On a new connection it presents the certificate that
// it has by then.
type expiring struct {
	credentials.TransportCredentials
}

func (e expiring) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return conn, auth, nil // admit refuses it
	}
	end := time.Until(info.State.PeerCertificates[0].NotAfter)
	return &mortal{Conn: conn, end: time.AfterFunc(end, func() { _ = conn.Close() })}, auth, nil
}

// Clone belongs to the interface.
func (e expiring) Clone() credentials.TransportCredentials {
	return expiring{e.TransportCredentials.Clone()}
}

// mortal is a connection with its end set.
type mortal struct {
	net.Conn
	end *time.Timer
}

func (m *mortal) Close() error {
	m.end.Stop()
	return m.Conn.Close()
}
