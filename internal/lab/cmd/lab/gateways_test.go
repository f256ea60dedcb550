package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/internal/testkit"
)

func gateway(name string, age time.Duration, protocol gatewayv1.ProtocolType, port int32, addresses ...string) gatewayv1.Gateway {
	g := gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1000000, 0).Add(-age))},
		Spec:       gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{{Name: "one", Protocol: protocol, Port: port}}},
	}
	for _, a := range addresses {
		g.Status.Addresses = append(g.Status.Addresses, gatewayv1.GatewayStatusAddress{Value: a})
	}
	return g
}

func regionOf(ip netip.Addr) string {
	return map[byte]string{1: "us", 2: "eu"}[ip.As4()[2]]
}

func TestTargets(t *testing.T) {
	second := gateway("second", time.Minute, gatewayv1.HTTPSProtocolType, 443, "198.18.1.2")
	second.Spec.Listeners = append(second.Spec.Listeners, second.Spec.Listeners[0]) // two host names on one port
	got := targets([]gatewayv1.Gateway{
		second,
		gateway("first", time.Hour, gatewayv1.HTTPProtocolType, 80, "198.18.1.1", "198.18.2.1", "example.com", "198.18.9.1"),
		gateway("games", time.Hour, gatewayv1.UDPProtocolType, 5300, "198.18.1.3"),
		gateway("waiting", time.Hour, gatewayv1.HTTPProtocolType, 80),
	}, regionOf)
	var lines []string
	for _, g := range got {
		lines = append(lines, g.gateway.String()+" "+g.region+" "+g.scheme+" "+g.address)
	}
	want := "shop/first us http 198.18.1.1:80\nshop/first eu http 198.18.2.1:80\nshop/second us https 198.18.1.2:443"
	if strings.Join(lines, "\n") != want {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), want)
	}
}

// machine stands in for the machine and the lab: ports of the machine are free
// ports of the test, and a dialled address answers with its own name.
type machine struct {
	listeners map[string]net.Listener
	busy      string
}

func (m *machine) listen(address string) (net.Listener, error) {
	if address == m.busy {
		return nil, errors.New("address already in use")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	m.listeners[address] = l
	return l, err
}

func (m *machine) dial(_ context.Context, region, address string) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, region+" "+address)
			conn.Close()
		}
	}()
	return net.Dial("tcp", l.Addr().String())
}

// ask connects to a port of the machine and returns who answers.
func (m *machine) ask(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", m.listeners[address].Addr().String())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	data, err := io.ReadAll(conn)
	testkit.Must(t, err)
	return string(data)
}

// Every Gateway is offered: the second one at the next free port. A port follows
// its Gateway to another address, and is closed with it.
func TestForwarder(t *testing.T) {
	m := &machine{listeners: map[string]net.Listener{}, busy: "127.0.0.1:18081"}
	var out bytes.Buffer
	f := &forwarder{
		regions: []string{"us", "eu"}, listen: m.listen, dial: m.dial, out: &out, open: map[gatewayPort]*offer{}, failed: map[gatewayPort]bool{},
	}
	first := gateway("first", time.Hour, gatewayv1.HTTPProtocolType, 80, "198.18.1.1", "198.18.2.1")
	second := gateway("second", time.Minute, gatewayv1.HTTPProtocolType, 80, "198.18.1.2")
	expect := func(address, want string) {
		t.Helper()
		if got := m.ask(t, address); got != want {
			t.Errorf("%s is answered by %q, want %q", address, got, want)
		}
	}
	update := func(gateways ...gatewayv1.Gateway) {
		t.Helper()
		out.Reset()
		list := targets(gateways, regionOf)
		if !f.update(t.Context(), list) {
			t.Error("the change is not reported")
		}
		if f.update(t.Context(), list) {
			t.Error("a change is reported, but there is none")
		}
	}

	update(first)
	expect("127.0.0.1:18080", "us 198.18.1.1:80")
	expect("127.0.0.1:28080", "eu 198.18.2.1:80")

	update(second, first)
	expect("127.0.0.1:18082", "us 198.18.1.2:80") // 18081 is in use
	if got := out.String(); got != "Gateway shop/second, port 80 in region us (198.18.1.2:80): http://127.0.0.1:18082/\n" {
		t.Errorf("printed: %s", got)
	}
	if lines := strings.Count(f.list(), "\n"); lines != 3 {
		t.Errorf("the list has %d lines, want 3:\n%s", lines, f.list())
	}

	first.Status.Addresses[0].Value = "198.18.1.7"
	update(second, first)
	expect("127.0.0.1:18080", "us 198.18.1.7:80")

	update(first)
	if _, err := net.Dial("tcp", m.listeners["127.0.0.1:18082"].Addr().String()); err == nil {
		t.Error("the port of the deleted Gateway still accepts connections")
	}
	if !strings.Contains(out.String(), "127.0.0.1:18082 is closed") {
		t.Errorf("printed: %s", out.String())
	}
}
