package envoy_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// behindDead is a port of an edge that sends everything to one living backend and to addresses where nobody listens.
func behindDead(t *testing.T, dead int, living ...netip.AddrPort) uint16 {
	t.Helper()
	e := startEdge(t)
	l := locality("a", 1_000_000, netip.AddrPort{})
	l.Endpoints = living
	for i := range dead {
		l.Endpoints = append(l.Endpoints, netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1", i+1)))
	}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{{Key: "store"}}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}},
		lbsync.LoadAssignment{Key: "store", Localities: []lbsync.Locality{l}})
	return port
}

// A request that reached no backend finds one that lives, with a body of up to 256 KiB whatever its method. With more it
// does, or is answered 503. The addresses beside are not even refused, so the body comes before the next try.
func TestBodiesFindWhoLivesOnARealEnvoy(t *testing.T) {
	t.Parallel()
	if testing.Short() || !testkit.InOwnNetwork(t) {
		return
	}
	nft(t, "table ip lost { chain out { type filter hook output priority 0; tcp dport 1 drop; }; }")
	port := behindDead(t, 1, sink(t, 0))
	for _, size := range []int{1 << 10, 40 << 10, 200 << 10} {
		for range 3 {
			if got, want := uploaded(t, port, http.MethodPost, bytes.NewReader(make([]byte, size))), fmt.Sprint("200 ", size); !strings.HasPrefix(got, want) {
				t.Errorf("POST of %d bytes: %s", size, got)
			}
		}
	}
	seen := map[string]bool{}
	for range 4 {
		seen[uploaded(t, port, http.MethodPost, io.MultiReader(bytes.NewReader(make([]byte, 4<<20))))[:3]] = true // its length is not known
	}
	for status := range seen {
		if status != "200" && status != "503" {
			t.Errorf("POST of 4 MiB: %v", seen)
		}
	}
	// Where nobody lives, a body that comes while the next try is waited for is no reason for another answer.
	if got := uploaded(t, behindDead(t, 1), http.MethodPost, &trickle{400, time.Millisecond}); !strings.HasPrefix(got, "503") {
		t.Error("POST where nobody lives:", got)
	}
	if got := uploaded(t, behindDead(t, 1), http.MethodPost, io.MultiReader(bytes.NewReader(make([]byte, 4<<20)))); !strings.HasPrefix(got, "503") {
		t.Error("POST of 4 MiB where nobody lives:", got)
	}
}

// What is idempotent is sent again when its connection closes before the answer; a POST may have been done.
func TestClosedConnectionsOnARealEnvoy(t *testing.T) {
	for _, c := range []struct{ method, want string }{
		{http.MethodGet, "200"}, {http.MethodHead, "200"}, {http.MethodOptions, "200"}, {http.MethodPut, "200"}, {http.MethodDelete, "200"},
		{http.MethodPost, "503"}, {http.MethodPatch, "503"},
	} {
		var asked atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				conn, _, err := w.(http.Hijacker).Hijack()
				testkit.Must(t, err)
				conn.Close()
			}
		}))
		if got := uploaded(t, behindDead(t, 0, netip.MustParseAddrPort(s.Listener.Addr().String())), c.method, nil); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.method, got, c.want)
		}
		s.Close()
	}
}

// An edge closes a connection that it does not use before a server would that keeps it for a short time, so no POST meets
// the end of a connection. gunicorn keeps it for 2 s.
func TestIdleConnectionsOnARealEnvoy(t *testing.T) {
	idle := make(chan time.Time, 1)
	closed := make(chan time.Duration, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateIdle:
			idle <- time.Now()
		case http.StateClosed:
			select {
			case began := <-idle:
				closed <- time.Since(began)
			default:
			}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	port := behindDead(t, 0, netip.MustParseAddrPort(s.Listener.Addr().String()))
	if got := uploaded(t, port, http.MethodPost, nil); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	select {
	case after := <-closed:
		if after > 1900*time.Millisecond || after < time.Second {
			t.Error("closed after", after)
		}
	case <-time.After(10 * time.Second):
		t.Error("kept for 10 s")
	}
}
