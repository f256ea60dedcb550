package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// Who begins a handshake and does not end it has no socket for long.
func TestHandshakeIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	h := newHub(t, server.Config{})
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.address)
	check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "\x16\x03\x01\x02\x00")
	check(t, err)
	check(t, c.SetReadDeadline(time.Now().Add(timeout)))
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the socket is still open after %s", timeout)
	}
}

// An edge is told how many streams and how much of headers the hub takes, and one
// that does not keep to it gets its stream refused, or loses its connection.
func TestHTTP2Limits(t *testing.T) {
	h := newHub(t, server.Config{})
	c := newRawClient(t, h)
	settings := c.settings()
	for id, most := range map[http2.SettingID]uint32{http2.SettingMaxConcurrentStreams: 8, http2.SettingMaxHeaderListSize: 16 << 10} {
		if value, ok := settings[id]; !ok || value > most {
			t.Errorf("%s is %d, want at most %d", id, value, most)
		}
	}
	for stream := uint32(1); stream < 2*9; stream += 2 {
		c.opens(stream, "")
	}
	if reset := c.waitsFor(func(f http2.Frame) bool { r, ok := f.(*http2.RSTStreamFrame); return ok && r.StreamID == 17 }); !reset {
		t.Error("a ninth stream was not refused")
	}

	c = newRawClient(t, h)
	c.opens(1, strings.Repeat("x", 15<<10)+strings.Repeat("y", 15<<10))
	if refused := c.waitsFor(func(f http2.Frame) bool {
		_, reset := f.(*http2.RSTStreamFrame)
		_, away := f.(*http2.GoAwayFrame)
		return reset || away
	}); !refused && !c.hungUp {
		t.Error("headers of 30 KiB were not refused")
	}

	c = newRawClient(t, h)
	for range 10 { // two too many are allowed, and gRPC counts those within a second of another
		check(t, c.WritePing(false, [8]byte{}))
	}
	if away := c.waitsFor(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }); !away {
		t.Error("a client that sends many PINGs was not sent away")
	}
}

// rawClient speaks HTTP/2 frame by frame, as an edge with a certificate.
type rawClient struct {
	*http2.Framer
	t      *testing.T
	hungUp bool // the hub did
}

func newRawClient(t *testing.T, h *hub) *rawClient {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: h.roots(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{h.certificate(usEdge)}}}
	conn, err := dialer.DialContext(t.Context(), "tcp", h.address)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	check(t, conn.SetDeadline(time.Now().Add(4*time.Second))) // before the hub hangs up because no PING was answered
	_, err = io.WriteString(conn, http2.ClientPreface)
	check(t, err)
	c := &rawClient{Framer: http2.NewFramer(conn, conn), t: t}
	check(t, c.WriteSettings())
	return c
}

func (c *rawClient) settings() map[http2.SettingID]uint32 {
	c.t.Helper()
	settings := map[http2.SettingID]uint32{}
	c.waitsFor(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if ok {
			_ = s.ForeachSetting(func(one http2.Setting) error {
				settings[one.ID] = one.Val
				return nil
			})
		}
		return ok
	})
	return settings
}

// opens begins a stream, with a header of this value, and leaves it open.
func (c *rawClient) opens(stream uint32, value string) {
	c.t.Helper()
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"},
		{":authority", "hub"}, {"content-type", "application/grpc"}, {"te", "trailers"}, {"large", value}} {
		check(c.t, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	first, rest := block.String(), ""
	if len(first) > 16<<10 {
		first, rest = first[:16<<10], first[16<<10:]
	}
	// The hub may hang up before it has read all: waitsFor sees that.
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(first), EndHeaders: rest == ""})
	if rest != "" {
		_ = c.WriteContinuation(stream, true, []byte(rest))
	}
}

// waitsFor reads frames until one is right; false if the hub hangs up before.
func (c *rawClient) waitsFor(right func(http2.Frame) bool) bool {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.hungUp = !errors.Is(err, os.ErrDeadlineExceeded)
			return false
		}
		if right(f) {
			return true
		}
	}
}
