package envoy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// vanishing is the address whose packets are lost from some moment on.
const vanishing = "127.0.0.2"

// nft loads rules into the test's own network.
func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// listenOn starts a server at an address and returns where.
func listenOn(t *testing.T, address string, handler http.Handler) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	_ = s.Listener.Close()
	var err error
	s.Listener, err = net.Listen("tcp", address+":0")
	testkit.Must(t, err)
	s.Start()
	t.Cleanup(s.CloseClientConnections)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// A peer that vanishes ends each request within 10 s: those that it has not acknowledged, those that it has, streams that
// are silent, WebSockets, and uploads. Meanwhile a backend that reads nothing loses nothing.
func TestVanishedPeerOnARealEnvoy(t *testing.T) {
	t.Parallel()
	if testing.Short() || !testkit.InOwnNetwork(t) {
		return
	}
	testkit.SetKernel(t, "net.ipv4.tcp_retries2", "3") // as the chart's notes ask
	e := startEdge(t)
	const pause = 12 * time.Second
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/now":
		case r.Header.Get("Upgrade") != "":
			conn, _, err := w.(http.Hijacker).Hijack()
			testkit.Must(t, err)
			t.Cleanup(func() { conn.Close() })
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
		default:
			time.Sleep(time.Minute)
		}
	})
	h1, h1Load := serve("h1", listenOn(t, vanishing, hang))
	socket, err := net.Listen("tcp", vanishing+":0")
	testkit.Must(t, err)
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(socket) }()
	h2, h2Load := serve("h2", netip.MustParseAddrPort(socket.Addr().String()))
	h2.Protocol = model.H2C
	pair, pairLoad := serve("pair", h1Load.Localities[0].Endpoints[0])
	pairLoad.Localities[0].Endpoints = append(pairLoad.Localities[0].Endpoints, backend(t, "living"))
	slow, slowLoad := serve("slow", sink(t, pause))
	port := freePort(t)
	host := func(name string) model.VirtualHost {
		return model.VirtualHost{Hostname: name + ".example", Rules: []model.Rule{{Match: prefix("/"), Forward: to(name)}}}
	}
	everywhere := host("h2")
	everywhere.Hostname = "*"
	e.apply(lbsync.Program{Assignments: []model.Assignment{h1, h2, pair, slow},
		Listeners: []lbsync.Listener{httpListener(port, host("h1"), host("pair"), host("slow"), everywhere)}}, h1Load, h2Load, pairLoad, slowLoad)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	send := func(name, method, path string, body io.Reader) string {
		request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), body)
		testkit.Must(t, err)
		request.Host = name + ".example"
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		content, _ := io.ReadAll(response.Body)
		return fmt.Sprintf("%d %s", response.StatusCode, content)
	}
	client := grpcClient(t, port)
	watch, err := client.Watch(ctx, &healthv1.HealthCheckRequest{})
	testkit.Must(t, err)
	_, err = watch.Recv()
	testkit.Must(t, err)
	_, webSocket, status := upgradedAt(t, port, "h1.example", "/")
	if status != 101 {
		t.Fatal(status)
	}
	var running sync.WaitGroup
	vanished := time.Now().Add(time.Second)
	ends := func(what, want string, f func() string) {
		running.Go(func() {
			got := f()
			if took := time.Since(vanished); !strings.HasPrefix(got, want) || took > 10*time.Second {
				t.Errorf("%s: %q after %s, want %q within 10 s", what, got, took, want)
			}
		})
	}
	running.Go(func() {
		if got, want := send("slow", "PUT", "/", bytes.NewReader(make([]byte, 16<<20))), fmt.Sprint("200 ", 16<<20); !strings.HasPrefix(got, want) {
			t.Errorf("a backend that pauses for %s: %s", pause, got)
		}
	})
	ends("POST that was acknowledged", "503", func() string { return send("h1", "POST", "/", nil) })
	ends("GET that another endpoint answers", "200 living", func() string { return send("pair", "GET", "/", nil) })
	ends("GET that another endpoint answers", "200 living", func() string { return send("pair", "GET", "/", nil) })
	ends("upload", "503", func() string { return send("h1", "POST", "/", &trickle{200, 100 * time.Millisecond}) })
	ends("WebSocket", "EOF", func() string { _, err := webSocket.ReadByte(); return fmt.Sprint(err) })
	ends("silent gRPC stream", "rpc error", func() string { _, err := watch.Recv(); return fmt.Sprint(err) })
	time.Sleep(time.Until(vanished.Add(-100 * time.Millisecond)))
	if got := send("h1", "POST", "/now", nil); !strings.HasPrefix(got, "200") { // leaves a connection without a request
		t.Error(got)
	}
	time.Sleep(time.Until(vanished))
	nft(t, "table ip vanished { chain out { type filter hook output priority 0; ip daddr "+vanishing+" drop; ip saddr "+vanishing+" drop; }; }")
	ends("POST on a kept connection", "503", func() string { return send("h1", "POST", "/now", nil) })
	ends("gRPC call on a kept connection", "rpc error", func() string {
		_, err := client.Check(ctx, &healthv1.HealthCheckRequest{})
		return fmt.Sprint(err)
	})
	running.Wait()
}
