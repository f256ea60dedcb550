package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A client that retries hides a loss. The server drops every second request on
// a connection that has already answered one; net/http would send a GET again.
func TestNeverRetries(t *testing.T) {
	var received atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if received.Add(1)%2 == 0 {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
			}
		}
	}))
	defer server.Close()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		received.Store(0)
		samples := Run(context.Background(), Config{Rate: 200, Method: method, URL: server.URL, Client: Client((&net.Dialer{}).DialContext, nil)}, 40)
		if got := received.Load(); got != 40 {
			t.Errorf("%s: the server received %d requests for 40 sent", method, got)
		}
		if failed := Failed(samples); failed != 20 {
			t.Errorf("%s: %d of 40 failed, want the 20 that the server dropped", method, failed)
		}
	}
}

// Slow answers do not slow an open loop.
func TestKeepsItsRate(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) { time.Sleep(300 * time.Millisecond) }))
	defer server.Close()
	samples := Run(context.Background(), Config{Rate: 100, URL: server.URL, Client: Client((&net.Dialer{}).DialContext, nil)}, 50)
	span := samples[49].At.Sub(samples[0].At)
	if span != 490*time.Millisecond {
		t.Errorf("50 requests at 100 per second were due over %v, want 490ms", span)
	}
}

func series(start time.Time, seconds int, from func(second int) (status int, took time.Duration)) []Sample {
	var out []Sample
	for i := range seconds * 10 {
		status, took := from(i / 10)
		out = append(out, Sample{At: start.Add(time.Duration(i) * 100 * time.Millisecond), Status: status, Took: took})
	}
	return out
}

func TestSettledAfter(t *testing.T) {
	start := time.Unix(1000, 0)
	bad := func(until int) func(int) (int, time.Duration) {
		return func(second int) (int, time.Duration) {
			if second < until {
				return 503, 0
			}
			return 200, 0
		}
	}
	nothingFailed := func(window []Sample) bool { return Failed(window) == 0 }
	if got, ok := SettledAfter(series(start, 15, bad(2)), start, 10*time.Second, nothingFailed); !ok || got != 2*time.Second {
		t.Errorf("settled after %v, %v; want 2s", got, ok)
	}
	if got, ok := SettledAfter(series(start, 8, bad(2)), start, 10*time.Second, nothingFailed); ok {
		t.Errorf("settled after %v without ten seconds to show for it", got)
	}
	if got, ok := SettledAfter(series(start, 15, func(s int) (int, time.Duration) {
		if s == 6 {
			return 503, 0
		}
		return 200, 0
	}), start, 10*time.Second, nothingFailed); ok {
		t.Errorf("settled after %v though second 6 failed", got)
	}
}

func TestPart(t *testing.T) {
	samples := []Sample{{Status: 200, Cluster: "a"}, {Status: 200, Cluster: "b"}, {Status: 200, Cluster: "a"}, {Status: 503}, {Status: 200, Cluster: "c"}}
	if got := Part(samples, "a", "b"); got != 0.75 {
		t.Errorf("part of a and b is %v, want 0.75", got)
	}
}

func TestFirstSpan(t *testing.T) {
	start := time.Unix(1000, 0)
	slowUntil := func(second int) []Sample {
		return series(start, 30, func(s int) (int, time.Duration) {
			if s < second {
				return 200, time.Second
			}
			return 200, 0
		})
	}
	quick := func(span []Sample) bool {
		return Count(span, func(s Sample) bool { return s.Took > 200*time.Millisecond })*100 <= len(span)
	}
	// 20 s hold 200 samples, of which two may be slow.
	if got, ok := FirstSpan(slowUntil(2), start, 20*time.Second, quick); !ok || got != 1800*time.Millisecond {
		t.Errorf("the first quick span starts after %v, %v; want 1.8s", got, ok)
	}
	if got, ok := FirstSpan(slowUntil(25), start, 20*time.Second, quick); ok {
		t.Errorf("a quick span of 20 s starts after %v, and there are only 5 s of them", got)
	}
}
