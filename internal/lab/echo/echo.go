package echo

import (
	"encoding/json"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Identity is who answers; it comes from the pod's environment.
type Identity struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Version   string `json:"version"`
}

// Answer is the body of every answer but /-/count and /-/ready.
type Answer struct {
	Identity
	Method string      `json:"method"`
	Host   string      `json:"host"`
	Path   string      `json:"path"`
	Header http.Header `json:"header"`
}

// Count is what /-/count answers: the requests received so far, those of the
// count's own path and of probes left out.
type Count struct {
	Requests int64 `json:"requests"`
}

const maxBody = 1 << 20

// Handler answers as who. The query parameter delay (a Go duration, at most
// 60s) makes it slow; status makes it answer with that code. A WebSocket gets
// back what it sends.
func Handler(who Identity) http.Handler {
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /-/count", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Count{Requests: requests.Load()})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Upgrade") == "websocket" {
			sendBack(w)
			return
		}
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
		if !wait(r) {
			return
		}
		w.Header().Set("X-Cluster", who.Cluster)
		w.Header().Set("X-Pod", who.Pod)
		w.Header().Set("X-Version", who.Version)
		writeJSON(w, status(r), Answer{Identity: who, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header})
	})
	return mux
}

// wait sleeps as the request asks; false when its client has gone.
func wait(r *http.Request) bool {
	delay, err := time.ParseDuration(r.URL.Query().Get("delay"))
	if err != nil || delay <= 0 {
		return true
	}
	select {
	case <-time.After(min(delay, time.Minute)):
		return true
	case <-r.Context().Done():
		return false
	}
}

func status(r *http.Request) int {
	var code int
	if err := json.Unmarshal([]byte(r.URL.Query().Get("status")), &code); err != nil || code < 200 || code > 599 {
		return http.StatusOK
	}
	return code
}

// sendBack upgrades the connection and sends back what comes, as a WebSocket would, without its frames.
func sendBack(w http.ResponseWriter) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	_, _ = io.Copy(conn, buffered)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
