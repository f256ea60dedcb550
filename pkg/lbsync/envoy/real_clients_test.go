package envoy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// headersOf is a backend that answers with the headers that it got, one a line, sorted.
func headersOf(t *testing.T) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			lines = append(lines, strings.ToLower(name)+": "+strings.Join(values, ","))
		}
		slices.Sort(lines)
		fmt.Fprint(w, strings.Join(lines, "\n"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// What of a client's headers reaches backends: docs/security.md says the same.
func TestHeadersOfClientsOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	a, load := serve("a", headersOf(t))
	rule := model.Rule{Match: prefix("/"), Forward: to("a")}
	setting := model.Rule{Match: prefix("/set"), Forward: to("a"), Request: model.HeaderChanges{Set: []model.Header{{Name: "x-forwarded-host", Value: "by-route"}}}}
	host := model.VirtualHost{Hostname: "*", Rules: []model.Rule{setting, rule}}
	direct, behind, proxied := httpListener(freePort(t), host), httpListener(freePort(t), host), httpListener(freePort(t), host)
	behind.Clients.TrustedHops = 1
	proxied.Clients.ProxyProtocol = true
	e.apply(lbsync.Program{Listeners: []lbsync.Listener{direct, behind, proxied}, Assignments: []model.Assignment{a}}, load)

	claims := []string{"forwarded: for=6.6.6.6", "x-real-ip: 6.6.6.6", "x-client-ip: 6.6.6.6", "true-client-ip: 6.6.6.6", "x-forwarded-host: evil.example",
		"x-forwarded-port: 1", "x-forwarded-server: evil", "x-forwarded-prefix: /evil", "x-original-host: evil.example", "x-original-url: /admin", "x-rewrite-url: /admin"}
	always := []string{"x-envoy-retry-on: 5xx", "x-envoy-max-retries: 99", "x-envoy-original-path: /admin", "x-envoy-internal: true", "x-envoy-external-address: 6.6.6.6",
		"x-envoy-is-timeout-retry: true", "x-envoy-original-method: POST", "x-envoy-anything: 1", "x-forwarded-client-cert: Hash=1", "x-crossway-sends: 1", "x-crossway-bytes: 1"}
	send := strings.Join(slices.Concat(claims, always, []string{"x-forwarded-for: 6.6.6.6, 7.7.7.7", "x-forwarded-proto: https", "x-request-id: theirs", "x-own: kept"}), "\r\n")
	for _, c := range []struct {
		what   string
		port   uint16
		path   string
		before string // the request
		want   []string
		claims bool // the claims arrive
	}{
		{"directly", direct.Port, "/", "", []string{"x-forwarded-for: 6.6.6.6, 7.7.7.7,", "x-forwarded-proto: http", "x-own: kept", "x-request-id: theirs", "x-envoy-external-address: 127.0.0.1"}, false},
		{"a route sets one", direct.Port, "/set", "", []string{"x-forwarded-host: by-route"}, false},
		{"behind a trusted proxy", behind.Port, "/", "", []string{"x-forwarded-for: 6.6.6.6, 7.7.7.7,", "x-forwarded-proto: https", "x-envoy-external-address: 7.7.7.7"}, true},
		{"the PROXY protocol", proxied.Port, "/", "PROXY TCP4 9.9.9.9 8.8.8.8 1 2\r\n", []string{"x-forwarded-for: 6.6.6.6, 7.7.7.7,9.9.9.9", "x-envoy-external-address: 9.9.9.9"}, false},
	} {
		got := raw(t, c.port, fmt.Sprintf("%sGET %s HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n%s\r\n\r\n", c.before, c.path, send))
		lines := strings.Split(got, "\n")
		for _, want := range c.want {
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
				t.Errorf("%s: no %q in\n%s", c.what, want, got)
			}
		}
		for _, claim := range claims {
			if slices.Contains(lines, claim) != c.claims {
				t.Errorf("%s: %q arrives: %v", c.what, claim, !c.claims)
			}
		}
		for _, never := range always {
			if slices.Contains(lines, never) {
				t.Errorf("%s: %q arrives", c.what, never)
			}
		}
	}
	if got := raw(t, proxied.Port, "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"); got != "closed" {
		t.Errorf("without a PROXY header: %s", got)
	}
}

// raw sends bytes and returns the body of the answer, or "closed".
func raw(t *testing.T, port uint16, request string) string {
	t.Helper()
	status, _, body := exchange(t, port, request)
	switch {
	case status == "":
		return "closed"
	case !strings.HasPrefix(status, "200 "):
		return status
	}
	return body
}

// exchange sends bytes and returns the answer. Its status, "200 OK", is empty where there is none.
func exchange(t *testing.T, port uint16, request string) (status string, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, request)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", nil, ""
	}
	defer response.Body.Close()
	content, _ := io.ReadAll(response.Body)
	return response.Status, response.Header, string(content)
}

// clientHello is the first message of a TLS client.
func clientHello(name string) string {
	client, server := net.Pipe()
	defer server.Close()
	go func() { _ = tls.Client(client, &tls.Config{InsecureSkipVerify: true, ServerName: name}).Handshake() }()
	hello := make([]byte, 1<<14)
	n, _ := server.Read(hello)
	return string(hello[:n])
}

// preface is how an HTTP/2 connection begins.
const preface = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// A connection ends soon in each state in which its client may leave it; a WebSocket does not.
func TestSlowClientsOnARealEnvoy(t *testing.T) {
	t.Parallel()
	x := newTenants(t)
	const (
		idle  = 2 * time.Second
		drain = 9 * time.Second // once a request was possible: Envoy says GOAWAY, waits 5 s and then 1 s for the client
	)
	x.parameters(idle)
	x.serve("a short idle timeout")
	socket := openWebSocket(t, x.tls, "a.example", "a.example")
	began := time.Now()
	for what, c := range map[string]struct {
		port  uint16
		tls   bool
		send  string
		least time.Duration
		most  time.Duration
	}{
		"plain and idle":              {port: x.plain, least: idle, most: idle + 6*time.Second},
		"half a request":              {port: x.plain, send: "GET / HTTP/1.1\r\nhost: a.example\r\n", least: 9 * time.Second, most: 13 * time.Second},
		"HTTP/2 without a request":    {port: x.plain, send: preface, least: idle, most: idle + drain},
		"TLS without a hello":         {port: x.tls, least: 4 * time.Second, most: 8 * time.Second},
		"half a hello":                {port: x.tls, send: "\x16\x03\x01\x02\x00\x01", least: 4 * time.Second, most: 8 * time.Second},
		"TLS and idle":                {port: x.tls, tls: true, least: idle, most: idle + 6*time.Second},
		"idle after a request":        {port: x.plain, send: "GET /none HTTP/1.1\r\nhost: none.example\r\n\r\n", least: idle, most: idle + drain},
		"TLS and then half a request": {port: x.tls, tls: true, send: "GET / HTTP/1.1\r\n", least: 9 * time.Second, most: 13 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if c.tls {
				secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", NextProtos: []string{"http/1.1"}})
				if err := secure.Handshake(); err != nil {
					t.Fatal(err)
				}
				conn = secure
			}
			opened := time.Now()
			fmt.Fprint(conn, c.send)
			_ = conn.SetDeadline(opened.Add(c.most))
			_, err = io.Copy(io.Discard, conn)
			if took := time.Since(opened); took < c.least-100*time.Millisecond || took > c.most-50*time.Millisecond {
				t.Errorf("closed after %s (%v), want %s to %s", took, err, c.least, c.most)
			}
		})
	}
	t.Cleanup(func() {
		if err := socket.alive(); err != nil {
			t.Errorf("the WebSocket, open for %s: %v", time.Since(began), err)
		}
	})
}

// A handshake ends long before an idle connection does.
func TestSlowHandshakeOnARealEnvoy(t *testing.T) {
	t.Parallel()
	x := newTenants(t)
	x.serve("the usual parameters")
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", x.tls))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	opened := time.Now()
	fmt.Fprint(conn, clientHello("a.example"))
	_ = conn.SetDeadline(opened.Add(15 * time.Second))
	_, err = io.Copy(io.Discard, conn)
	if took := time.Since(opened); took < 9*time.Second || took > 14*time.Second {
		t.Errorf("closed after %s: %v", took, err)
	}
}

// Each flood of HTTP/2 frames ends its connection, and nobody else's.
func TestFloodsOnARealEnvoy(t *testing.T) {
	x := newTenants(t)
	x.serve("team A")
	socket := openWebSocket(t, x.plain, "", "a.example")
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "none.example"}, {Name: ":path", Value: "/"}} {
		_ = encoder.WriteField(h)
	}
	request := block.String()
	const enough = 20_000
	for what, flood := range map[string]func(f *http2.Framer, n uint32) error{
		"PING without reading":     func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"SETTINGS without reading": func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		"rapid reset": func(f *http2.Framer, n uint32) error {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: []byte(request), EndHeaders: true})
			return f.WriteRSTStream(2*n+1, http2.ErrCodeCancel)
		},
		"empty DATA": func(f *http2.Framer, n uint32) error {
			if n == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(request), EndHeaders: true})
			}
			return f.WriteData(1, false, nil)
		},
		"CONTINUATION": func(f *http2.Framer, n uint32) error {
			if n == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(request)})
			}
			return f.WriteContinuation(1, false, []byte("\x00\x01a\x7f\x20"+strings.Repeat("b", 159)))
		},
		"PRIORITY": func(f *http2.Framer, n uint32) error {
			return f.WritePriority(2*(n%100)+1, http2.PriorityParam{Weight: uint8(n)})
		},
		"WINDOW_UPDATE": func(f *http2.Framer, _ uint32) error { return f.WriteWindowUpdate(0, 1) },
	} {
		t.Run(what, func(t *testing.T) {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", x.plain))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, preface)
			framer := http2.NewFramer(conn, conn)
			sent := uint32(0)
			for ; sent < enough && err == nil; sent++ {
				err = flood(framer, sent)
			}
			if err == nil { // the last frames may have been read by nobody
				got, err := io.ReadAll(conn)
				t.Logf("%q", got)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%d frames did not end the connection", sent)
				}
			}
		})
	}
	if err := socket.alive(); err != nil {
		t.Errorf("the WebSocket of somebody else: %v", err)
	}
}
