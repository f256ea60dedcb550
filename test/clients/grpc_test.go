package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
)

// Every gRPC client makes every call to every gRPC server, each of them with its defaults.
func TestGRPC(t *testing.T) {
	t.Parallel() // with TestLoad: it waits most of the time
	tools := installed(t)
	backends := grpcBackends(t, tools)
	e := startEdge(t, tools, backends)
	matrix(t, e, grpcClients(t, tools, e), backends, grpcCases())
}

// grpcCases is the table. An exchange's body is a message, or what is sent in 40 of them;
// its pause is for how long the server says nothing, or the client in a stream.
func grpcCases() []httpCase {
	call := func(name, method string, size int, pause float64) httpCase {
		return httpCase{name: name, path: fixed("/battery.Peer/" + method), request: exchange{Body: size, Pause: pause}, check: called(size)}
	}
	deadline := call("deadline", "Unary", 5, 40)
	deadline.request.Method, deadline.check = "deadline", func(_ exchange, _ backend, r result) error {
		if r.Status == int(codes.Unavailable) && strings.Contains(r.Text, "remote reset") {
			return nil // the server has the same deadline, and its reset came first
		}
		if r.Status != int(codes.DeadlineExceeded) {
			return fmt.Errorf("code %d %s, want DEADLINE_EXCEEDED", r.Status, r.Text)
		}
		return nil
	}
	failure := call("failure", "Fail", 5, 0)
	failure.check = func(_ exchange, _ backend, r result) error {
		if r.Status != int(codes.ResourceExhausted) || r.Text != "café 100%" || r.Trailers["why"] != "because" {
			return fmt.Errorf("code %d %q %v, want RESOURCE_EXHAUSTED, its message and its trailer", r.Status, r.Text, r.Trailers)
		}
		return nil
	}
	return []httpCase{
		call("unary", "Unary", 0, 0), call("unary of 64 KiB", "Unary", small, 0), call("unary of 3 MiB", "Unary", 3<<20, 0),
		call("late unary", "Unary", 5, 20), call("very late unary", "Unary", 5, 75),
		call("chat", "Chat", small, 0), call("silent chat", "Chat", 5, 45),
		call("upload", "Upload", large, 0), call("slow upload", "Upload", small/40*40, 20),
		call("download", "Download", large, 0), call("silent download", "Download", 10, 45),
		failure, deadline,
	}
}

func called(size int) func(exchange, backend, result) error {
	return func(_ exchange, _ backend, r result) error {
		if r.Status != 0 || r.Length != size {
			return fmt.Errorf("code %d %s, %d bytes; want %d", r.Status, r.Text, r.Length, size)
		}
		return nil
	}
}

func grpcBackends(t *testing.T, tools install.Clients) []backend {
	t.Helper()
	socket := listen(t)
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}))
	server.RegisterService(&peer, nil)
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(server.Stop)
	port, err := strconv.ParseUint(socket.Addr().String()[len("127.0.0.1:"):], 10, 16)
	testkit.Must(t, err)
	return []backend{
		{name: "grpc-go", appProtocol: "grpc", address: loopback(uint16(port))},
		serve(t, backend{name: "grpc-java", appProtocol: "kubernetes.io/h2c"}, nil, javaCommand(t, tools, "GrpcPeer", "serve", "PORT")...),
		serve(t, backend{name: "grpc-c", appProtocol: "kubernetes.io/h2c"}, pythonEnv(t, tools), "python3", testdata(t, "python/grpc_peer.py"), "serve", "PORT"),
	}
}

func grpcClients(t *testing.T, tools install.Clients, e *edge) (clients []client) {
	t.Helper()
	dialed := &connections{ca: e.ca}
	t.Cleanup(dialed.close)
	for _, scheme := range []string{"http", "https"} {
		suffix := map[string]string{"http": "", "https": "-tls"}[scheme]
		clients = append(clients,
			client{"grpc-go" + suffix, scheme, 0, each(dialed.call)},
			client{"grpc-java" + suffix, scheme, 0, process(nil, javaCommand(t, tools, "GrpcPeer", "call", e.ca)...)},
			client{"grpc-c" + suffix, scheme, 0, process(pythonEnv(t, tools), "python3", testdata(t, "python/grpc_peer.py"), "call", e.ca)})
	}
	return clients
}

// raw is a codec of messages that are bytes.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// peer is the service that the programs in testdata have, too.
var peer = grpc.ServiceDesc{ServiceName: "battery.Peer", Streams: []grpc.StreamDesc{
	{StreamName: "Unary", Handler: func(_ any, s grpc.ServerStream) error {
		var message []byte
		if err := s.RecvMsg(&message); err != nil {
			return err
		}
		if err := nap(s.Context(), strings.Split(string(message[:min(len(message), 20)]), "\n")[0]); err != nil {
			return err
		}
		return s.SendMsg(&message)
	}},
	{StreamName: "Fail", Handler: func(_ any, s grpc.ServerStream) error {
		s.SetTrailer(metadata.Pairs("why", "because"))
		return status.Error(codes.ResourceExhausted, "café 100%")
	}},
	{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		for {
			var message []byte
			if err := s.RecvMsg(&message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(&message); err != nil {
				return err
			}
		}
	}},
	{StreamName: "Upload", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		length, err := lengthOf(s)
		if err != nil {
			return err
		}
		total := []byte(strconv.Itoa(length))
		return s.SendMsg(&total)
	}},
	{StreamName: "Download", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		var wanted []byte
		if err := s.RecvMsg(&wanted); err != nil {
			return err
		}
		var count, size int
		var pause string
		if _, err := fmt.Sscan(string(wanted), &count, &size, &pause); err != nil {
			return err
		}
		for n := range count {
			if n > 0 {
				if err := nap(s.Context(), pause); err != nil {
					return err
				}
			}
			piece := make([]byte, size)
			if err := s.SendMsg(&piece); err != nil {
				return err
			}
		}
		return nil
	}},
}}

// lengthOf reads a stream to its end.
func lengthOf(s interface{ RecvMsg(any) error }) (length int, err error) {
	for {
		var message []byte
		if err := s.RecvMsg(&message); errors.Is(err, io.EOF) {
			return length, nil
		} else if err != nil {
			return length, err
		}
		length += len(message)
	}
}

func nap(ctx context.Context, seconds string) error {
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(n * float64(time.Second))):
		return nil
	}
}

// connections are grpc-go's, one for each port of the edge.
type connections struct {
	ca   string
	mu   sync.Mutex
	open map[string]*grpc.ClientConn
}

func (c *connections) close() {
	for _, conn := range c.open {
		conn.Close()
	}
}

func (c *connections) to(at *url.URL) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.open[at.Host]; conn != nil {
		return conn, nil
	}
	trust := insecure.NewCredentials()
	if at.Scheme == "https" {
		public, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(public)
		trust = credentials.NewTLS(&tls.Config{RootCAs: pool})
	}
	conn, err := grpc.NewClient(at.Host, grpc.WithTransportCredentials(trust), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	if err == nil {
		if c.open == nil {
			c.open = map[string]*grpc.ClientConn{}
		}
		c.open[at.Host] = conn
	}
	return conn, err
}

// call makes one call with grpc-go.
func (c *connections) call(ctx context.Context, e exchange) (r result, err error) {
	at, err := url.Parse(e.URL)
	if err != nil {
		return r, err
	}
	conn, err := c.to(at)
	if err != nil {
		return r, err
	}
	limit := 150 * time.Second
	if e.Method == "deadline" {
		limit = 3 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, at.Path)
	if err == nil {
		r.Length, err = converse(s, at.Path[strings.LastIndex(at.Path, "/")+1:], e)
	}
	if failed, ok := status.FromError(err); ok {
		r.Status, r.Text, r.Trailers = int(failed.Code()), failed.Message(), map[string]string{}
		if s != nil && err != nil {
			r.Trailers["why"] = strings.Join(s.Trailer().Get("why"), ",")
		}
		return r, nil
	}
	return r, err
}

// converse sends and receives what a method is for, and returns the length of what came back, or arrived there.
func converse(s grpc.ClientStream, method string, e exchange) (int, error) {
	pause := strconv.FormatFloat(e.Pause, 'f', -1, 64)
	silence := time.Duration(e.Pause * float64(time.Second))
	message := append([]byte(pause+"\n"), make([]byte, e.Body)...)
	switch method {
	case "Upload":
		for n := range 40 {
			if n == 20 {
				time.Sleep(silence)
			}
			piece := make([]byte, e.Body/40)
			if err := s.SendMsg(&piece); err != nil {
				break // RecvMsg says why
			}
		}
		var total []byte
		if err := errors.Join(s.CloseSend(), s.RecvMsg(&total)); err != nil {
			return 0, err
		}
		return strconv.Atoi(string(total))
	case "Download":
		count := 40
		if e.Pause > 0 {
			count = 2
		}
		wanted := fmt.Appendf(nil, "%d %d %s", count, e.Body/count, pause)
		if err := errors.Join(s.SendMsg(&wanted), s.CloseSend()); err != nil {
			return 0, err
		}
		return lengthOf(s)
	}
	turns := 1
	if method == "Chat" {
		turns = 2
	}
	for n := range turns {
		if n > 0 {
			time.Sleep(silence)
		}
		_ = s.SendMsg(&message) // RecvMsg says why not
		if n == turns-1 {
			_ = s.CloseSend()
		}
		var back []byte
		if err := s.RecvMsg(&back); err != nil {
			return 0, err
		}
		if string(back) != string(message) {
			return 0, errors.New("another message came back")
		}
	}
	more, err := lengthOf(s)
	return e.Body + more, err
}
