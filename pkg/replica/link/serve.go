package link

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/replica"
)

const (
	followMethod = "/crossway.replica.v1.Replica/Follow"
	// maxFrame is the size of a message: updatesInFrame or one value, in base64.
	maxFrame, updatesInFrame = 2 << 20, 256 << 10
	maxHello                 = 4 << 10
	// maxConnections of replicas: each dials once, and may have a connection that is dead.
	maxConnections = 4 * maxPeers
	// stuckTime is how long a reader may take for one Frame.
	stuckTime = 10 * time.Second
)

// hello is what a reader says. It is for logs: who reads is let in by its certificate.
type hello struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

var followStream = grpc.StreamDesc{StreamName: "Follow", ServerStreams: true}

// service is the gRPC service. Its messages are JSON, of which a newer version may have
// more fields.
func service() *grpc.ServiceDesc {
	stream := followStream
	stream.Handler = func(server any, stream grpc.ServerStream) error { return server.(*Link).serveFollower(stream) }
	return &grpc.ServiceDesc{ServiceName: "crossway.replica.v1.Replica", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{stream}}
}

// codec is JSON as a codec of gRPC.
type codec struct{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "json" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if err := json.Unmarshal(data.Materialize(), v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

// serve lets other replicas read until ctx ends; stop waits for nothing. If it ends before, end is told why:
// a replica that nobody can read does not go on.
func (l *Link) serve(ctx context.Context, socket net.Listener, end func(error)) (stop func()) {
	g := grpc.NewServer(
		grpc.Creds(&replicaCredentials{TransportCredentials: credentials.NewTLS(l.certificates.server()), link: l}),
		grpc.ForceServerCodecV2(codec{}),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second, MaxConnectionIdle: 10 * time.Second}),
		grpc.MaxConcurrentStreams(1), grpc.MaxHeaderListSize(16<<10), grpc.MaxRecvMsgSize(maxHello), grpc.MaxSendMsgSize(maxFrame))
	g.RegisterService(service(), l)
	l.config.Log.Info("serving other replicas", "address", socket.Addr().String())
	go func() { end(g.Serve(socket)) }()
	return g.Stop
}

// replicaCredentials bound connections, those that are not authenticated by
// package listener and the others here.
type replicaCredentials struct {
	credentials.TransportCredentials
	link *Link
	open atomic.Int32
}

// ServerHandshake implements credentials.TransportCredentials.
func (r *replicaCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := r.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		r.link.metrics.refusedConnections.Inc()
		return nil, nil, err
	}
	if r.open.Add(1) > maxConnections {
		r.open.Add(-1)
		r.link.metrics.refusedConnections.Inc()
		return nil, nil, fmt.Errorf("there are %d connections of replicas", maxConnections)
	}
	if pending, ok := raw.(*listener.Conn); ok {
		pending.Established()
	}
	return &countedConn{Conn: conn, open: &r.open}, auth, nil
}

// Clone implements credentials.TransportCredentials.
func (r *replicaCredentials) Clone() credentials.TransportCredentials { return r }

// countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	open   *atomic.Int32
	closed atomic.Bool
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// served is a replica that reads this one.
type served struct {
	follower *replica.Follower
	woken    chan struct{} // one place
	// sending is since when a Frame is being sent; nil: none is.
	sending atomic.Pointer[time.Time]
}

// serveFollower sends what this replica has until the reader is gone.
func (l *Link) serveFollower(stream grpc.ServerStream) error {
	keys := l.certificates.current.Load()
	p, _ := peer.FromContext(stream.Context())
	if err := keys.check(p); err != nil { // the connection may be older than the present CAs
		l.metrics.refusedConnections.Inc()
		return status.Error(codes.Unauthenticated, err.Error())
	}
	var reader hello
	if err := stream.RecvMsg(&reader); err != nil {
		return err
	}
	l.mu.Lock()
	s := &served{follower: l.own.Follow(), woken: make(chan struct{}, 1)}
	l.served[s] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.follower.End()
		delete(l.served, s)
	}()
	ended := make(chan error, 1)
	go func() { ended <- l.send(stream, s) }()
	stuck := time.NewTicker(stuckTime / 10)
	defer stuck.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-keys.ctx.Done():
			return status.Error(codes.Unavailable, "the certificate of replicas is another one now")
		case <-stuck.C:
			if since := s.sending.Load(); since != nil && time.Since(*since) > stuckTime {
				return status.Error(codes.DeadlineExceeded, "nothing is read")
			}
		}
	}
}

// send sends Frames until the stream ends.
func (l *Link) send(stream grpc.ServerStream, s *served) error {
	heartbeat := time.NewTicker(replica.Heartbeat)
	defer heartbeat.Stop()
	for {
		frame, more := l.next(s)
		now := time.Now()
		s.sending.Store(&now)
		if err := stream.SendMsg(&frame); err != nil {
			return err
		}
		s.sending.Store(nil)
		for _, u := range frame.Updates {
			l.metrics.sent.WithLabelValues(u.Topic).Add(float64(len(u.Key) + len(u.Value)))
		}
		if more {
			continue
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.woken:
		case <-heartbeat.C:
		}
	}
}

// next is the next Frame, and whether there is more already.
func (l *Link) next(s *served) (frame replica.Frame, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	frame = replica.Frame{Name: l.config.Name, Version: l.config.Version, Leaving: l.leaving}
	frame.Updates, frame.Whole = s.follower.Next(updatesInFrame)
	return frame, s.follower.Lacks()
}
