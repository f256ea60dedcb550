package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"time"

	"github.com/go-logr/logr"
)

// dumpTimeout is how long a dump may take.
const dumpTimeout = 10 * time.Second

// Dump returns a part of a program's state as text for people. It never contains
// the data of a Secret.
type Dump func(context.Context) (string, error)

// Debug serves the profiles of net/http/pprof at /debug/pprof/ and each of Dumps
// at /debug/<name>. It is a manager's Runnable on every replica.
type Debug struct {
	// Address is one that CheckDebugAddress accepts.
	Address string
	Dumps   map[string]Dump
	Log     logr.Logger
}

// CheckDebugAddress returns an error unless the address, which is the value of a
// flag, is on the loopback interface.
func CheckDebugAddress(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port, like 127.0.0.1:6060", flag, address)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s %q is not a loopback address: profiles and dumps have no authentication; use 127.0.0.1 and kubectl port-forward", flag, address)
}

// NeedLeaderElection says that every replica serves.
func (d Debug) NeedLeaderElection() bool { return false }

// Start serves until ctx ends.
func (d Debug) Start(ctx context.Context) error {
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.Address)
	if err != nil {
		return fmt.Errorf("serve profiles and dumps: %w", err)
	}
	s := &http.Server{Handler: d.Handler(), ReadHeaderTimeout: dumpTimeout}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	d.Log.Info("serving profiles and dumps", "address", socket.Addr().String())
	if err := s.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve profiles and dumps: %w", err)
	}
	return nil
}

// Handler serves the profiles, the dumps, and a list of both at /debug/.
func (d Debug) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/{$}", func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range append(slices.Sorted(maps.Keys(d.Dumps)), "pprof/") {
			fmt.Fprintln(w, "/debug/"+name)
		}
	})
	for name, dump := range d.Dumps {
		mux.HandleFunc("GET /debug/"+name, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), dumpTimeout)
			defer cancel()
			text, err := dump(ctx)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, text)
		})
	}
	return mux
}
