package charts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

// pressured is an edge whose memory the test says to be so full: Envoy's injected
// resource, a file, takes the heap's place in the chart's own overload manager.
type pressured struct {
	edge
	file string
}

func newPressured(t *testing.T) pressured {
	t.Helper()
	e := newEdge(t, "")
	p := pressured{e, filepath.Join(e.dir, "pressure")}
	p.set("0")
	var lonelyParts map[string]any
	testkit.Must(t, yaml.Unmarshal(fmt.Appendf(nil, lonely, e.dir, 8080), &lonelyParts))
	web := lonelyParts["static_resources"].(map[string]any)["listeners"].([]any)
	e.start(e.withoutHub(func(bootstrap map[string]any) {
		static := bootstrap["static_resources"].(map[string]any)
		static["listeners"] = append(static["listeners"].([]any), web...)
		manager := bootstrap["overload_manager"].(map[string]any)
		manager["resource_monitors"] = []any{map[string]any{"name": "injected", "typed_config": map[string]any{
			"@type": "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig", "filename": p.file}}}
		for _, action := range manager["actions"].([]any) {
			for _, trigger := range action.(map[string]any)["triggers"].([]any) {
				trigger.(map[string]any)["name"] = "injected"
			}
		}
	}), "--service-node", "a", "--service-cluster", "us")
	testkit.Eventually(t, "it serves", func() bool { s, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:8080/"); return s == 200 })
	return p
}

// set replaces the file: Envoy watches for a rename.
func (p pressured) set(pressure string) {
	p.t.Helper()
	write(p.t, p.file+".next", pressure)
	testkit.Must(p.t, os.Rename(p.file+".next", p.file))
}

// scaled waits until Envoy has taken the pressure in.
func (p pressured) await(statistic string) {
	p.t.Helper()
	testkit.Eventually(p.t, statistic, func() bool {
		out, _ := p.command(p.t.Context(), "ask", "GET", "/stats?filter=^overload").Output()
		return strings.Contains(string(out), statistic)
	})
}

// An edge that runs out of memory sheds load in steps: first it waits less for
// idle clients, then it closes connections after their answer, then it refuses
// connections and at last requests. It goes on saying that it is ready, and
// serves again when the pressure is gone.
func TestEdgeShedsLoadBeforeMemoryRunsOut(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	p := newPressured(t)
	idle := dialWeb(t)
	begun := time.Now()
	if answer, closes := idle.get(); answer != 200 || closes {
		t.Fatalf("at first: %d, closes %v", answer, closes)
	}

	p.set("0.93")
	p.await("overload.envoy.overload_actions.disable_http_keepalive.active: 1")
	p.await("overload.envoy.overload_actions.reduce_timeouts.scale_percent: 100")
	fresh := dialWeb(t)
	if answer, closes := fresh.get(); answer != 200 || !closes {
		t.Errorf("at 93 %%: %d, and the connection stays open: %v", answer, !closes)
	}
	if !idle.closedWithin(15 * time.Second) { // 2 s, and 5 s of draining
		t.Errorf("an idle client still has its connection after %s", time.Since(begun))
	}

	p.set("0.96")
	p.await("overload.envoy.overload_actions.reject_incoming_connections.active: 1")
	if !dialWeb(t).closedWithin(time.Second) {
		t.Error("at 96 % a new connection is taken")
	}
	if status, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:19001/ready"); status != 200 {
		t.Errorf("at 96 %% /ready says %d", status)
	}
	if status, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:19001/stats/prometheus"); status != 200 {
		t.Errorf("at 96 %% the statistics say %d", status)
	}

	p.set("0.1")
	p.await("overload.envoy.overload_actions.reject_incoming_connections.active: 0")
	if status, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:8080/"); status != 200 {
		t.Errorf("after the pressure: %d", status)
	}
}

// webClient is one connection of a client.
type webClient struct {
	t *testing.T
	net.Conn
	reader *bufio.Reader
}

func dialWeb(t *testing.T) webClient {
	t.Helper()
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", "127.0.0.1:8080")
	testkit.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return webClient{t, c, bufio.NewReader(c)}
}

// get sends a request and says whether the answer closes the connection.
func (c webClient) get() (status int, closes bool) {
	c.t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	answer, err := http.ReadResponse(c.reader, nil)
	testkit.Must(c.t, err)
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Close
}

func (c webClient) closedWithin(d time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(d))
	_, err := c.reader.ReadByte()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
