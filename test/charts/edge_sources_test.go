package charts

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

// sides are an attacker and an honest client, and the address at which both find the Gateway.
type sides struct {
	attackers []string
	honest    string
	gateway   string
}

// One machine opens more idle connections than an edge takes in all. With the node's
// limit by source, which the chart loads, another one is served within a second. An
// attacker has a whole /64 of IPv6 addresses.
func TestOneSourceDoesNotFillTheConnectionTable(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	becomeNode(t)
	for _, s := range []sides{
		{[]string{"192.0.2.66"}, "192.0.2.99", gatewayAddress},
		{[]string{"2001:db8:66::1", "2001:db8:66::2", "2001:db8:66::3"}, "2001:db8:99::1", "2001:db8:18::5"},
	} {
		t.Run(s.gateway, func(t *testing.T) { testOneSource(t, s) })
	}
}

func testOneSource(t *testing.T, s sides) {
	for _, client := range append(s.attackers, s.honest, s.gateway) {
		if client != gatewayAddress { // which the node has already
			addLoopbackAddress(t, client)
		}
	}
	const most = 100
	e := newEdge(t, fmt.Sprintf("overload.maxConnections=%d,sourceLimit.connections=%d,sourceLimit.gateways={198.18.1.0/24,2001:db8:18::/64}", most, most/2))
	var web map[string]any
	testkit.Must(t, yaml.Unmarshal(fmt.Appendf(nil, strings.ReplaceAll(lonely, "address: 127.0.0.1", `address: "`+s.gateway+`"`), e.dir, 8080), &web))
	edge := e.start(e.withoutHub(func(bootstrap map[string]any) {
		static := bootstrap["static_resources"].(map[string]any)
		static["listeners"] = append(static["listeners"].([]any), web["static_resources"].(map[string]any)["listeners"].([]any)...)
	}), "--service-node", "a", "--service-cluster", "us")
	testkit.Eventually(t, "it serves", func() bool { return s.servedFrom(s.honest, time.Second) })

	for range 2 { // as each edge of the node does
		if out, err := exec.CommandContext(t.Context(), "nft", "-f", filepath.Join(e.dir, "limits.nft")).CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	defer func() { _ = edge.Process.Kill() }() // the next one has the same ports
	for what, first := range map[string]string{
		"idle": "", "a half TLS hello": "\x16\x03\x01\x02\x00", "half a request": "GET / HTTP/1.1\r\nHost: a\r\n", "an HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(what, func(t *testing.T) {
			testkit.Eventually(t, "the connections of the last attack are gone", func() bool {
				n, err := e.busy()
				return err == nil && n == 0
			})
			open := 0
			for i := range most * 12 / 10 {
				c, err := s.dialFrom(s.attackers[i%len(s.attackers)], 2*time.Second)
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
			if !s.servedFrom(s.honest, time.Second) {
				t.Error("another source is not served within a second")
			}
		})
	}
}

// Another number holds at once, also for a client that has connections.
func TestOtherSourceLimitHoldsAtOnce(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	becomeNode(t)
	s := sides{honest: "192.0.2.99", gateway: gatewayAddress}
	addLoopbackAddress(t, s.honest)
	socket, err := net.Listen("tcp", net.JoinHostPort(s.gateway, "8080"))
	testkit.Must(t, err)
	defer socket.Close()
	opens := func() bool {
		c, err := s.dialFrom(s.honest, 2*time.Second)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err == nil
	}
	load := func(most int) {
		t.Helper()
		e := newEdge(t, fmt.Sprintf("sourceLimit.connections=%d,sourceLimit.gateways={198.18.1.0/24}", most))
		out, err := exec.CommandContext(t.Context(), "nft", "-f", filepath.Join(e.dir, "limits.nft")).CombinedOutput()
		if err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	load(2)
	if first, second, third := opens(), opens(), opens(); !first || !second || third {
		t.Error("a client has not 2 connections of 2")
	}
	load(4)
	if !opens() {
		t.Error("a client that has 2 connections of 4 gets no other one")
	}
}

func addLoopbackAddress(t *testing.T, address string) {
	t.Helper()
	loopback, err := netlink.LinkByName("lo")
	testkit.Must(t, err)
	a := &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(address)), Flags: unix.IFA_F_NODAD}
	testkit.Must(t, netlink.AddrAdd(loopback, a))
}

func (s sides) dialFrom(address string, timeout time.Duration) (net.Conn, error) {
	return (&net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).Dial("tcp", net.JoinHostPort(s.gateway, "8080"))
}

// servedFrom tries again where the edge has not seen yet that others hung up.
func (s sides) servedFrom(address string, within time.Duration) bool {
	client := &http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}}
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get("http://" + net.JoinHostPort(s.gateway, "8080") + "/")
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
