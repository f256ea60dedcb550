package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/yaml"
)

// dumpTimeout is how long a dump may take.
const dumpTimeout = 10 * time.Second

// Dump returns a part of a program's state: a text for people, or a value that is
// written as YAML. It never contains the data of a Secret.
type Dump func(context.Context) (any, error)

// Debug serves the profiles of net/http/pprof at /debug/pprof/ and each of Dumps
// at /debug/<name>. It is a manager's Runnable on every replica.
type Debug struct {
	// Address is one that CheckDebugAddress accepts.
	Address string
	Dumps   map[string]Dump
	Log     logr.Logger
}

// CheckAddress returns an error unless the address, which is the value of a flag,
// is host:port or :port.
func CheckAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port, like :8080", flag, address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s %q: port %q is not a number from 0 to 65535", flag, address, port)
	}
	return nil
}

// CheckDebugAddress returns an error unless the address, which is the value of a
// flag, is on the loopback interface.
func CheckDebugAddress(flag, address string) error {
	if err := CheckAddress(flag, address); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(address); isLoopback(host) {
		return nil
	}
	return fmt.Errorf("%s %q is not a loopback address: profiles and dumps have no authentication; use 127.0.0.1 and kubectl port-forward", flag, address)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
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

// Handler serves the profiles, the dumps, and a list of both at /debug/. It
// answers only requests that name the loopback interface: a page in a browser,
// whose own name may resolve to 127.0.0.1 (DNS rebinding), sends that name.
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
			value, err := dump(ctx)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if text, ok := value.(string); ok {
				_, _ = io.WriteString(w, text)
				return
			}
			text, err := asYAML(value)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, _ = w.Write(text)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil { // without a port
			host = strings.Trim(r.Host, "[]")
		}
		if !isLoopback(host) {
			http.Error(w, fmt.Sprintf("host %q is not a loopback address", host), http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// asYAML is a value as YAML, without empty fields.
func asYAML(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	return yaml.Marshal(withoutEmpty(tree))
}

// withoutEmpty removes null and "" from the objects in a tree.
func withoutEmpty(tree any) any {
	switch t := tree.(type) {
	case map[string]any:
		maps.DeleteFunc(t, func(_ string, value any) bool { return value == nil || value == "" })
		for name := range t {
			t[name] = withoutEmpty(t[name])
		}
	case []any:
		for i := range t {
			t[i] = withoutEmpty(t[i])
		}
	}
	return tree
}
