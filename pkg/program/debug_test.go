package program

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

func TestDebugServesDumpsAndProfiles(t *testing.T) {
	s := httptest.NewServer(Debug{Dumps: map[string]Dump{
		"state":  func(context.Context) (any, error) { return "all is well\n", nil },
		"broken": func(context.Context) (any, error) { return nil, errors.New("no state yet") },
		"value": func(context.Context) (any, error) {
			return struct {
				Shares map[string]int
				Absent *int
				Empty  struct{ Name string }
				List   []struct{ Name, Zone string }
			}{Shares: map[string]int{"b": 0, "a": 1}, List: []struct{ Name, Zone string }{{Name: "x"}}}, nil
		},
	}}.Handler())
	defer s.Close()
	for path, want := range map[string]string{
		"/debug/":                   "/debug/broken\n/debug/state\n/debug/value\n/debug/pprof/\n",
		"/debug/state":              "all is well\n",
		"/debug/broken":             "no state yet\n",
		"/debug/value":              "Empty: {}\nList:\n- Name: x\nShares:\n  a: 1\n  b: 0\n",
		"/debug/pprof/heap?debug=1": "heap profile",
		"/debug/other":              "404",
	} {
		answer, err := http.Get(s.URL + path)
		testkit.Must(t, err)
		body, err := io.ReadAll(answer.Body)
		testkit.Must(t, err)
		answer.Body.Close()
		if !strings.HasPrefix(string(body), want) {
			t.Errorf("%s: %d %.100s, want %q", path, answer.StatusCode, body, want)
		}
	}
}

// A page in a browser can have its own name resolve to 127.0.0.1 and then read answers (DNS rebinding), but its requests
// have that name as their Host. Whatever address the server listens on, only loopback names are answered.
func TestDebugRefusesOtherHosts(t *testing.T) {
	handler := Debug{Dumps: map[string]Dump{"state": func(context.Context) (any, error) { return "all is well", nil }}}.Handler()
	for host, want := range map[string]int{
		"127.0.0.1:6060": 200, "localhost:6060": 200, "[::1]:6060": 200, "[::1]": 200, "localhost": 200, "127.8.8.8": 200,
		"attacker.example:6060": 421, "localhost.attacker.example": 421, "10.0.0.7:6060": 421, "": 421,
	} {
		for _, path := range []string{"/debug/", "/debug/state", "/debug/pprof/cmdline"} {
			request := httptest.NewRequest(http.MethodGet, path, nil)
			request.Host = host
			answer := httptest.NewRecorder()
			if handler.ServeHTTP(answer, request); answer.Code != want {
				t.Errorf("%s of host %q: %d, want %d", path, host, answer.Code, want)
			}
		}
	}
}
