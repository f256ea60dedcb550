package clients

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Some seconds of load by tools of others: each request is answered, and with 200.
func TestLoad(t *testing.T) {
	t.Parallel()
	tools := installed(t)
	backends := httpBackends(t, tools)
	e := startEdge(t, tools, backends)
	for _, b := range backends {
		for _, c := range []struct {
			name    string
			command []string
			bad     string // what the tool prints of a failure
			good    string
		}{
			{"wrk", []string{"wrk", "--threads", "1", "--connections", "20", "--duration", "3s", "--timeout", "30s", e.url("http", b.name, "/bytes/65536")},
				`Non-2xx|Socket errors`, `[1-9]\d* requests in`},
			{"wrk-tls", []string{"wrk", "--threads", "1", "--connections", "10", "--duration", "3s", "--timeout", "30s", e.url("https", b.name, "/bytes/0")},
				`Non-2xx|Socket errors`, `[1-9]\d* requests in`},
			{"h2load", []string{"h2load", "--requests", "2000", "--clients", "4", "--max-concurrent-streams", "10", e.url("http", b.name, "/bytes/0")},
				`[1-9]\d* (failed|errored|timeout|3xx|4xx|5xx)`, `2000 succeeded`},
			{"h2load-tls", []string{"h2load", "--requests", "1000", "--clients", "4", "--max-concurrent-streams", "10", e.url("https", b.name, "/bytes/65536")},
				`[1-9]\d* (failed|errored|timeout|3xx|4xx|5xx)`, `1000 succeeded`},
			{"h2load-1.1", []string{"h2load", "--h1", "--requests", "1000", "--clients", "10", e.url("http", b.name, "/bytes/0")},
				`[1-9]\d* (failed|errored|timeout|3xx|4xx|5xx)`, `1000 succeeded`},
		} {
			t.Run(c.name+"/"+b.name, func(t *testing.T) {
				out, err := exec.CommandContext(t.Context(), c.command[0], c.command[1:]...).CombinedOutput()
				if bad := regexp.MustCompile(c.bad).FindAll(out, -1); err != nil || len(bad) > 0 || !regexp.MustCompile(c.good).Match(out) {
					t.Errorf("%s: %v, %q\n%s", strings.Join(c.command, " "), err, bad, out)
				}
			})
		}
	}
}
