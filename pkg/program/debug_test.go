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
		"state":  func(context.Context) (string, error) { return "all is well\n", nil },
		"broken": func(context.Context) (string, error) { return "", errors.New("no state yet") },
	}}.Handler())
	defer s.Close()
	for path, want := range map[string]string{
		"/debug/":                   "/debug/broken\n/debug/state\n/debug/pprof/\n",
		"/debug/state":              "all is well\n",
		"/debug/broken":             "no state yet\n",
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
