package charts

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

const (
	attacker  = "192.0.2.66"
	honest    = "192.0.2.99"
	webAtEdge = gatewayAddress + ":8080"
)

// One machine opens more idle connections than an edge takes in all. With the
// node's limit by source, another one is served within a second.
func TestOneSourceDoesNotFillTheConnectionTable(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	becomeNode(t)
	for _, client := range []string{attacker, honest} {
		addLoopbackAddress(t, client)
	}
	const most = 100
	e := newEdge(t, fmt.Sprint("overload.maxConnections=", most))
	var web map[string]any
	testkit.Must(t, yaml.Unmarshal(fmt.Appendf(nil, strings.ReplaceAll(lonely, "address: 127.0.0.1", "address: "+gatewayAddress), e.dir, 8080), &web))
	e.start(e.withoutHub(func(bootstrap map[string]any) {
		static := bootstrap["static_resources"].(map[string]any)
		static["listeners"] = append(static["listeners"].([]any), web["static_resources"].(map[string]any)["listeners"].([]any)...)
	}), "--service-node", "a", "--service-cluster", "us")
	testkit.Eventually(t, "it serves", func() bool { return servedFrom(honest, time.Second) })

	limits, err := os.ReadFile(filepath.Join(root, "charts/edge/files/limits.nft"))
	testkit.Must(t, err)
	load := exec.CommandContext(t.Context(), "nft", "-f", "-")
	load.Stdin = strings.NewReader(strings.ReplaceAll(string(limits), "over 2000", fmt.Sprint("over ", most/2)))
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	for what, first := range map[string]string{
		"idle": "", "a half TLS hello": "\x16\x03\x01\x02\x00", "half a request": "GET / HTTP/1.1\r\nHost: a\r\n", "an HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(what, func(t *testing.T) {
			testkit.Eventually(t, "the connections of the last attack are gone", func() bool {
				n, err := e.busy()
				return err == nil && n == 0
			})
			open := 0
			for range most * 12 / 10 {
				c, err := dialFrom(attacker, 2*time.Second)
				if err != nil {
					continue
				}
				open++
				t.Cleanup(func() { c.Close() })
				_, _ = io.WriteString(c, first)
			}
			if open > most/2 {
				t.Errorf("one source has %d connections", open)
			}
			if !servedFrom(honest, time.Second) {
				t.Error("another source is not served within a second")
			}
		})
	}
}

func addLoopbackAddress(t *testing.T, address string) {
	t.Helper()
	loopback, err := netlink.LinkByName("lo")
	testkit.Must(t, err)
	a, err := netlink.ParseAddr(address + "/32")
	testkit.Must(t, err)
	testkit.Must(t, netlink.AddrAdd(loopback, a))
}

func dialFrom(address string, timeout time.Duration) (net.Conn, error) {
	return (&net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).Dial("tcp", webAtEdge)
}

// servedFrom tries again where the edge has not seen yet that others hung up.
func servedFrom(address string, within time.Duration) bool {
	client := &http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}}
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get("http://" + webAtEdge + "/")
		if err != nil {
			continue
		}
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}
