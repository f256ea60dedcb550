package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"

	"crossway.dev/crossway/pkg/listener"
)

// Limits of every connection.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	maxStreams    = 2*maxWatches + maxLists
	sendBuffer    = 256 << 10
	// What a connection may have the hub keep of what it sends, before it says who it
	// is: the smallest that HTTP/2 allows. Requests have no body.
	maxFrame, maxReceived = 16 << 10, 64 << 10
	// A client whose machine has vanished must not keep its watches for long.
	pingInterval, pingTimeout = 30 * time.Second, 15 * time.Second
)

// ListenerConfig is what a Listener is made from. All of it must be set.
type ListenerConfig struct {
	Server  *Server
	Address string // host:port
	// Authenticator says who makes a request.
	Authenticator authenticator.Request
	// Certificate is that of the next connection. Certified is closed once there is one.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Certified   <-chan struct{}
}

// Listener serves members over TLS once there is a certificate and something to
// serve. It is a manager's Runnable on every replica.
type Listener struct{ config ListenerConfig }

// NewListener makes a Listener.
func NewListener(config ListenerConfig) *Listener { return &Listener{config} }

// NeedLeaderElection says that every replica serves members.
func (l *Listener) NeedLeaderElection() bool { return false }

// Start serves until ctx ends. Watches are cut then: they never end by themselves,
// and agents go on with what they have.
func (l *Listener) Start(ctx context.Context) error {
	for _, condition := range []<-chan struct{}{l.config.Certified, l.config.Server.Ready()} {
		select {
		case <-condition:
		case <-ctx.Done():
			return nil
		}
	}
	socket, err := listener.Listen(ctx, l.config.Address)
	if err != nil {
		return fmt.Errorf("serve the member API: %w", err)
	}
	l.config.Server.config.Log.Info("serving the member API", "address", socket.Addr().String())
	return l.serve(ctx, socket)
}

// serve serves the connections of a socket until ctx ends.
func (l *Listener) serve(ctx context.Context, socket net.Listener) error {
	s := l.config.Server
	h := &http.Server{
		Handler:           &handler{Server: s, authenticator: l.config.Authenticator},
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, GetCertificate: l.config.Certificate},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       0, // requests have no body, and watches last
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingInterval, PingTimeout: pingTimeout, WriteByteTimeout: writeTimeout,
			MaxReadFrameSize: maxFrame, MaxReceiveBufferPerConnection: maxReceived, MaxReceiveBufferPerStream: maxReceived},
		ErrorLog:    log.New(io.Discard, "", 0), // of handshakes that fail: anybody can cause them
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	s.follow(h)
	defer context.AfterFunc(ctx, func() { _ = h.Close() })()
	if err := h.ServeTLS(socket, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the member API: %w", err)
	}
	return nil
}

// follow gives each connection of a server a *connection.
func (s *Server) follow(h *http.Server) {
	var all sync.Map // of *connection, by net.Conn
	h.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		c := &connection{Conn: conn}
		c.boundBuffer()
		all.Store(conn, c)
		return context.WithValue(ctx, connectionKey{}, c)
	}
	h.ConnState = func(conn net.Conn, state http.ConnState) {
		if state != http.StateClosed {
			return
		}
		if c, ok := all.LoadAndDelete(conn); ok {
			s.connectionClosed(c.(*connection))
		}
	}
}

type connectionKey struct{}

// connectionOf is the connection of a request.
func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// established says that the client of a connection is a member.
func (c *connection) established() {
	if conn := c.accepted(); conn != nil {
		conn.Established()
	}
}

// boundBuffer bounds what the kernel keeps for a client that does not read.
func (c *connection) boundBuffer() {
	if conn := c.accepted(); conn != nil {
		if socket, ok := conn.Conn.(*net.TCPConn); ok {
			_ = socket.SetWriteBuffer(sendBuffer) // a larger one works, too
		}
	}
}

// accepted is the connection as it was accepted.
func (c *connection) accepted() *listener.Conn {
	if tlsConn, ok := c.Conn.(*tls.Conn); ok {
		conn, _ := tlsConn.NetConn().(*listener.Conn)
		return conn
	}
	return nil
}
