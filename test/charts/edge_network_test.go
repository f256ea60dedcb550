package charts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

// The addresses of a node: its own, and those of a pool, which it has all by a
// local route.
const (
	nodeAddress    = "192.0.2.10"
	gatewayAddress = "198.18.1.5"
	gatewayRange   = "198.18.1.0/24"
)

// becomeNode gives the test's own network the addresses of an edge's node.
func becomeNode(t *testing.T) {
	t.Helper()
	loopback, err := netlink.LinkByName("lo")
	testkit.Must(t, err)
	own, err := netlink.ParseAddr(nodeAddress + "/32")
	testkit.Must(t, err)
	_, local, err := net.ParseCIDR(gatewayRange)
	testkit.Must(t, err)
	testkit.Must(t, netlink.AddrAdd(loopback, own))
	route := &netlink.Route{LinkIndex: loopback.Attrs().Index, Dst: local, Type: syscall.RTN_LOCAL, Table: syscall.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	testkit.Must(t, netlink.RouteAdd(route))
}

// withoutHub is the chart's bootstrap without what comes from the hub: an Envoy
// serves only once it has that. edit changes the rest.
func (e edge) withoutHub(edit func(bootstrap map[string]any)) string {
	e.t.Helper()
	text, err := os.ReadFile(e.bootstrap())
	testkit.Must(e.t, err)
	var bootstrap map[string]any
	testkit.Must(e.t, yaml.Unmarshal(text, &bootstrap))
	delete(bootstrap, "dynamic_resources")
	runtime := bootstrap["layered_runtime"].(map[string]any)
	runtime["layers"] = runtime["layers"].([]any)[:1] // the other one is the hub's
	delete(bootstrap["cluster_manager"].(map[string]any), "load_stats_config")
	if edit != nil {
		edit(bootstrap)
	}
	if text, err = yaml.Marshal(bootstrap); err != nil {
		e.t.Fatal(err)
	}
	file := filepath.Join(e.dir, "without-hub.yaml")
	write(e.t, file, string(text))
	return file
}

// statusOf asks over a connection of its own; 0: there was no answer.
func statusOf(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	testkit.Must(t, err)
	answer, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

// tcpListeners are the addresses on which anybody in this network listens, in
// the kernel's hexadecimal form.
func tcpListeners(t *testing.T) (addresses []string) {
	t.Helper()
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" {
				addresses = append(addresses, f[1])
			}
		}
	}
	return addresses
}

// Of an edge on its node's network, the only open port beside those of Gateways
// is that of /ready and the statistics, on the node's own address: not on a
// Gateway's, and no admin interface.
func TestStatisticsAreNotOnGatewayAddresses(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	becomeNode(t)
	t.Setenv("POD_IP", nodeAddress)
	e := newEdge(t, "")
	e.start(e.withoutHub(nil), "--service-node", "a", "--service-cluster", "us")
	at := func(address, path string) string { return "http://" + address + ":19001" + path }
	testkit.Eventually(t, "ready", func() bool { s, _ := statusOf(t, http.MethodGet, at(nodeAddress, "/ready")); return s == 200 })

	if status, _ := statusOf(t, http.MethodGet, at(gatewayAddress, "/ready")); status != 0 {
		t.Errorf("a Gateway's address answers %d", status)
	}
	if got := tcpListeners(t); len(got) != 1 || got[0] != "0A0200C0:4A39" {
		t.Errorf("sockets listen on %v, want only %s:19001", got, nodeAddress)
	}
	if status, body := statusOf(t, http.MethodGet, at(nodeAddress, "/stats/prometheus")); status != 200 || !strings.Contains(body, "envoy_server_live") {
		t.Errorf("statistics: %d %.100s", status, body)
	}
	for _, path := range []string{"/stats/prometheus?filter=a", "/stats", "/config_dump", "/", "/ready/", "/stats/prometheus/..", "/drain_listeners"} {
		if status, _ := statusOf(t, http.MethodGet, at(nodeAddress, path)); status != 404 {
			t.Errorf("%s answers %d", path, status)
		}
	}
	if status, _ := statusOf(t, http.MethodPost, at(nodeAddress, "/stats/prometheus")); status != 404 {
		t.Errorf("POST answers %d", status)
	}
	counts := map[int]int{}
	for range 40 {
		status, _ := statusOf(t, http.MethodGet, at(nodeAddress, "/stats/prometheus"))
		counts[status]++
	}
	if counts[200] == 0 || counts[200] > 15 || counts[200]+counts[429] != 40 {
		t.Errorf("40 readers at once got %v", counts)
	}
	if err := e.command(t.Context(), "ask", "POST", "/healthcheck/fail").Run(); err != nil {
		t.Error(err)
	}
	if status, _ := statusOf(t, http.MethodGet, at(nodeAddress, "/ready")); status != 503 {
		t.Errorf("/ready answers %d while the edge drains", status)
	}
	if err := e.command(t.Context(), "alive").Run(); err != nil {
		t.Error("an edge that drains would be restarted")
	}
}

// Whoever connects to the statistics takes neither a client's connection nor
// all of the node's files, and outside of metrics.sources nothing.
func TestStatisticsAreForFew(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	becomeNode(t)
	t.Setenv("POD_IP", nodeAddress)
	e := newEdge(t, "metrics.sources={192.0.2.0/24}")
	e.start(e.withoutHub(nil), "--service-node", "a", "--service-cluster", "us")
	const url = "http://" + nodeAddress + ":19001/ready"
	testkit.Eventually(t, "ready", func() bool { s, _ := statusOf(t, http.MethodGet, url); return s == 200 })

	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("198.18.1.9")}}
	if !closedAtOnce(t, elsewhere) {
		t.Error("a client outside of metrics.sources is served")
	}
	open := 0
	for range 300 {
		if !closedAtOnce(t, net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(nodeAddress)}}) {
			open++
		}
	}
	if open == 0 || open > 256 {
		t.Errorf("%d of 300 connections stay open", open)
	}
}

// closedAtOnce opens a connection that lasts as long as the test, and says
// whether the edge closes it without having been asked anything.
func closedAtOnce(t *testing.T, from net.Dialer) bool {
	t.Helper()
	from.Timeout = 5 * time.Second
	c, err := from.DialContext(t.Context(), "tcp", nodeAddress+":19001")
	if err != nil {
		return true
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// asUser runs the script as a user without any right, as the chart's pod does.
func (e edge) asUser(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	for dir := e.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		testkit.Must(t, os.Chmod(dir, 0o777))
	}
	cmd := e.command(context.WithoutCancel(t.Context()), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 101, Gid: 101}}
	return cmd
}

// On a node that lets every user listen on low ports an edge is not root. On
// another one it says what to set, and beside an edge of another user it waits:
// Linux would not let both have a port, and the new one would serve nothing.
func TestEdgeIsNotRoot(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	if !manyUsers() {
		t.Skip("this machine's user has no other users")
	}
	becomeNode(t)
	t.Setenv("NODE_NETWORK", "true")
	t.Setenv("METRICS_PORT", "19001")
	e := newEdge(t, "")
	bootstrap := filepath.Join(e.dir, "lonely.yaml")
	write(t, bootstrap, fmt.Sprintf(lonely, e.dir, 80))
	testkit.Must(t, os.Chmod(bootstrap, 0o644))
	testkit.Must(t, os.Chmod(filepath.Join(e.dir, "edge.sh"), 0o644))
	program, err := exec.LookPath(filepath.Join(strings.Split(e.path, ":")[0], "envoy"))
	testkit.Must(t, err)
	// A copy, because others may not look into this user's directories.
	if out, err := exec.CommandContext(t.Context(), "cp", program, e.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.path = e.dir + ":" + os.Getenv("PATH")
	run := []string{"run", bootstrap, "--disable-hot-restart", "--log-level", "error", "--concurrency", "1"}
	setStart := func(first string) {
		testkit.Must(t, os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte(first), 0o644))
	}
	setStart("1024")
	out, err := e.asUser(t, run...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "net.ipv4.ip_unprivileged_port_start=0") || !strings.Contains(string(out), "runAsRoot=true") {
		t.Errorf("where low ports are root's: %v, %s", err, out)
	}

	setStart("0")
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", nodeAddress+":19001") // an edge that is root
	testkit.Must(t, err)
	cmd := e.asUser(t, run...)
	said := &strings.Builder{}
	cmd.Stderr = said
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said)
		}
	})
	time.Sleep(time.Second)
	if status, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:80/"); status != 0 {
		t.Error("it started beside an edge of another user")
	}
	other.Close()
	testkit.Eventually(t, "it serves port 80", func() bool { s, _ := statusOf(t, http.MethodGet, "http://127.0.0.1:80/"); return s == 200 })
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Uid:\t101\t") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("%v\n%s", err, status)
	}
	if err := e.asUser(t, "ready").Run(); err != nil {
		t.Error("not ready: ", err)
	}
	stranger := e.command(t.Context(), "ready")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	if stranger.Run() == nil {
		t.Error("another user reaches the admin interface")
	}
}

// manyUsers tells a real root from that of a user namespace with one user.
func manyUsers() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && len(strings.Fields(string(text))) == 3 && strings.Fields(string(text))[2] == "4294967295"
}

// Where the kernel finds a peer that vanished in time, an edge adds no limit that also ends requests to a backend that
// pauses. Elsewhere it does, and says what to set.
func TestEdgeLimitsSilence(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	e := newEdge(t, "")
	for _, c := range []struct {
		retries string
		limited bool
	}{{"3", false}, {"15", true}} {
		testkit.SetKernel(t, "net.ipv4.tcp_retries2", c.retries)
		said, err := e.command(t.Context(), "run", e.bootstrap(), "--mode", "validate", "--service-node", "a", "--service-cluster", "b", "--disable-hot-restart").CombinedOutput()
		if strings.Contains(string(said), "net.ipv4.tcp_retries2=3") != c.limited || err != nil {
			t.Errorf("tcp_retries2 %s: %s %v", c.retries, said, err)
		}
		written, err := os.ReadFile(filepath.Join(e.dir, "bootstrap.yaml"))
		testkit.Must(t, err)
		if limited := strings.Contains(string(written), "TCP_USER_TIMEOUT"); limited != c.limited {
			t.Errorf("tcp_retries2 %s: %s", c.retries, written)
		}
	}
}
