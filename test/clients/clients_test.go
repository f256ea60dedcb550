package clients

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
)

// patience is how long a client's exchanges may take together. The longest waits 70 s.
const patience = 4 * time.Minute

// known are the exchanges that fail today, by a pattern of client/backend/case and a part of the error, and why.
var known = []struct{ pattern, part, reason string }{
	{"nginx/node-h2c/slow-*", "status 504", "now and then nginx waits 60 s for an edge whose backend is Node with HTTP/2; why is not known yet"},
}

// client is a program that makes exchanges with an edge.
type client struct {
	name   string
	scheme string
	can    feature
	run    func(ctx context.Context, exchanges []exchange, report func(result)) error
}

var tools = sync.OnceValues(func() (install.Clients, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a cold machine installs first
	defer cancel()
	return install.EnsureClients(ctx, os.Stderr)
})

func installed(t *testing.T) install.Clients {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real clients and servers: run without -short")
	}
	all, err := tools()
	testkit.Must(t, err)
	return all
}

// Every client makes every exchange with every backend that it can make.
func TestHTTP(t *testing.T) {
	tools := installed(t)
	backends := httpBackends(t, tools)
	e := startEdge(t, tools, backends)
	matrix(t, e, httpClients(t, tools, e, backends), backends, httpCases())
}

// matrix lets all clients make their exchanges at once, and then judges each in a subtest.
func matrix(t *testing.T, e *edge, all []client, backends []backend, cases []httpCase) {
	outcomes := make([][]outcome, len(all))
	var running sync.WaitGroup
	for n, c := range all {
		running.Go(func() { outcomes[n] = exchangeAll(t, e, c, backends, cases) })
	}
	running.Wait()
	for n, c := range all {
		t.Run(c.name, func(t *testing.T) {
			for _, o := range outcomes[n] {
				t.Run(o.name, func(t *testing.T) { judge(t, o.err) })
			}
		})
	}
}

// outcome is how an exchange ended.
type outcome struct {
	name string
	err  error
}

// exchangeAll makes a client's exchanges, all at once.
func exchangeAll(t *testing.T, e *edge, c client, backends []backend, cases []httpCase) []outcome {
	var outcomes []outcome
	var send []exchange
	checks := map[string]func(result) error{}
	for _, b := range backends {
		for _, k := range cases {
			if k.needs&^c.can != 0 || k.only != nil && !k.only(b) {
				continue
			}
			x := k.request
			x.ID = b.name + "/" + strings.ReplaceAll(k.name, " ", "-")
			x.URL = e.url(c.scheme, b.name, k.path(b))
			if strings.HasSuffix(x.URL, "/put/") {
				x.URL += strings.ReplaceAll(c.name+"-"+x.ID, "/", "-")
			}
			x.Waits = waits(x)
			outcomes, send = append(outcomes, outcome{name: x.ID}), append(send, x)
			checks[x.ID] = func(r result) error { return k.check(x, b, r) }
		}
	}
	slices.SortStableFunc(send, func(a, b exchange) int { return boolean(b.Waits) - boolean(a.Waits) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results := map[string]result{}
	var mu sync.Mutex
	err := c.run(ctx, send, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		results[r.ID] = r
	})
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
	for n := range outcomes {
		o := &outcomes[n]
		switch r, found := results[o.name]; {
		case !found:
			o.err = fmt.Errorf("no result within %s", patience)
		case r.Error != "":
			o.err = errors.New(r.Error)
		default:
			o.err = checks[o.name](r)
		}
	}
	return outcomes
}

// waits says that most of an exchange is silence.
func waits(e exchange) bool {
	return e.Pause+e.Read+e.Again > 0 || strings.Contains(e.URL, "/late/") || strings.Contains(e.URL, "/pause/") || strings.Contains(e.URL, "/slow/") || strings.Contains(e.URL, "?nap=")
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// judge fails the test, or skips it where it is known to fail.
func judge(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	_, name, _ := strings.Cut(t.Name(), "/")
	for _, k := range known {
		if ok, _ := path.Match(k.pattern, name); ok && strings.Contains(err.Error(), k.part) {
			t.Skipf("%s: %v", k.reason, err)
		}
	}
	t.Error(err)
}

// process is a client that reads exchanges from standard input and writes results to standard output.
func process(env []string, command ...string) func(context.Context, []exchange, func(result)) error {
	return func(ctx context.Context, exchanges []exchange, report func(result)) error {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = append(os.Environ(), env...)
		cmd.SysProcAttr = ownGroup
		var in strings.Builder
		for _, e := range exchanges {
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			in.Write(append(line, '\n'))
		}
		complaint := &output{}
		cmd.Stdin, cmd.Stderr = strings.NewReader(in.String()), complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r result
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				return fmt.Errorf("%q: %w", lines.Text(), err)
			}
			report(r)
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %.2000s", err, strings.Join(complaint.lines(""), "\n"))
		}
		return nil
	}
}
