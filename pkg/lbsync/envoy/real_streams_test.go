package envoy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// limited is a port of an edge that sends everything to one backend, under one rule's limits.
func limited(t *testing.T, protocol model.BackendProtocol, address netip.AddrPort, whole, each *time.Duration) (*edge, uint16) {
	t.Helper()
	e := startEdge(t)
	a, load := serve("store", address)
	a.Protocol = protocol
	if each != nil {
		a.Timeout = *each
	}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{httpListener(port,
		model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store"), Timeout: whole, BackendTimeout: each}}})}}, load)
	return e, port
}

// slowHealth is a health service whose Check takes a while.
type slowHealth struct {
	*health.Server
	takes time.Duration
}

func (s slowHealth) Check(ctx context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	time.Sleep(s.takes)
	return s.Server.Check(ctx, r)
}

// grpcServer is a stock gRPC server: it ends connections that ping more than once in five minutes.
func grpcServer(t *testing.T, service healthv1.HealthServer) netip.AddrPort {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, service)
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(server.Stop)
	return netip.MustParseAddrPort(socket.Addr().String())
}

func grpcClient(t *testing.T, port uint16) healthv1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthv1.NewHealthClient(conn)
}

// A gRPC stream that is silent, and a call that takes its time, live. Pings would have ended them after 2 s.
func TestSilentGRPCOnARealEnvoy(t *testing.T) {
	t.Parallel()
	service := health.NewServer()
	e, port := limited(t, model.H2C, grpcServer(t, slowHealth{service, 5 * time.Second}), nil, nil)
	client := grpcClient(t, port)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch, err := client.Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
		t.Error("a call of 5 s:", err)
	}
	service.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Error("a stream that was silent for 5 s:", got, err)
	}
	if stats := e.get("/stats?filter=cluster.store.upstream_cx_destroy_remote_with_active_rq"); !strings.Contains(stats, ": 0") {
		t.Error(stats)
	}
}

// sink is a backend that reads nothing for a while, and then all. It answers how much that was.
func sink(t *testing.T, nap time.Duration) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(nap)
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, " ", err)
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// uploaded sends a body and returns the answer.
func uploaded(t *testing.T, port uint16, method string, body io.Reader) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d/", port), body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	content, _ := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, content)
}

// nap is longer than the socket options of earlier versions allowed a window to be closed. More than 30 s were tried by hand.
const nap = 3 * time.Second

// A backend that pauses gets the whole body, over either protocol.
func TestPausingReaderOnARealEnvoy(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for _, protocol := range []model.BackendProtocol{model.HTTP1, model.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(nap)
				n, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n)
			}))
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(protocol == model.HTTP1)
			s.Config.Protocols.SetUnencryptedHTTP2(protocol == model.H2C)
			s.Start()
			t.Cleanup(s.Close)
			_, port := limited(t, protocol, netip.MustParseAddrPort(s.Listener.Addr().String()), nil, nil)
			if got := uploaded(t, port, http.MethodPut, bytes.NewReader(make([]byte, size))); got != fmt.Sprint("200 ", size) {
				t.Error(got)
			}
		})
	}
}

// trickle is a body of n bytes, one each interval.
type trickle struct {
	n        int
	interval time.Duration
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	time.Sleep(b.interval)
	b.n--
	p[0] = '.'
	return 1, nil
}

// socketServer is a backend that answers a handshake, unless it is asked for /silent, and then sends a byte each 200 ms.
// Anything else it answers with a body of 4 bytes in 2 s.
func socketServer(t *testing.T) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/silent":
			<-r.Context().Done()
		case r.Header.Get("Upgrade") == "":
			_, _ = io.Copy(io.Discard, r.Body)
			for range 4 {
				fmt.Fprint(w, ".")
				w.(http.Flusher).Flush()
				time.Sleep(500 * time.Millisecond)
			}
		default:
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, err = fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
			for ; err == nil; time.Sleep(200 * time.Millisecond) {
				_, err = fmt.Fprint(conn, ".")
			}
		}
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// upgraded opens a WebSocket, and returns its connection with what is read, and the status.
func upgraded(t *testing.T, port uint16, path string) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	return upgradedAt(t, port, "a.example", path)
}

func upgradedAt(t *testing.T, port uint16, host, path string) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nhost: %s\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", path, host)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // the caller reads the connection
	if err != nil {
		t.Fatal(err)
	}
	return conn, reader, response.StatusCode
}

// A limit is about what its text in the Gateway API says. "request": how long the gateway takes to respond, once it has the
// request. "backendRequest": from the start of a try to the end of its answer. Either ends with the answer to an upgrade.
func TestLimitsOfRulesOnARealEnvoy(t *testing.T) {
	limit, none := time.Second, time.Duration(0)
	for _, c := range []struct {
		name        string
		whole, each *time.Duration
		upload      string // of 2 s, by a POST, which is not tried again
		answer      string // of 2 s
		silent      int    // a handshake that is never answered
	}{
		{"request", &limit, nil, "200 ", "cut", 504},       // a second from the end of the upload
		{"backendRequest", nil, &limit, "408", "cut", 504}, // Envoy answers 408 while the request goes on
		{"request 0s", &none, nil, "200 ....", "....", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, port := limited(t, model.HTTP1, socketServer(t), c.whole, c.each)
			begin := time.Now()
			_, reader, status := upgraded(t, port, "/")
			if n, err := io.CopyN(io.Discard, reader, 15); err != nil || status != 101 || time.Since(begin) < 2*time.Second {
				t.Errorf("WebSocket: status %d, %d bytes in %s, %v", status, n, time.Since(begin), err)
			}
			if c.silent != 0 {
				if _, _, status := upgraded(t, port, "/silent"); status != c.silent {
					t.Errorf("a handshake without an answer: %d", status)
				}
			}
			if got := uploaded(t, port, http.MethodPost, &trickle{10, 200 * time.Millisecond}); !strings.HasPrefix(got, c.upload) {
				t.Errorf("an upload of 2 s: %s", got)
			}
			// What a client says about its own limits changes nothing.
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nhost: a.example\r\nx-envoy-upstream-stream-duration-ms: 0\r\nx-envoy-upstream-rq-timeout-ms: 0\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if got := string(content); (got != c.answer || err != nil) != (c.answer == "cut") {
				t.Errorf("an answer of 2 s: %q, %v", got, err)
			}
		})
	}
}
