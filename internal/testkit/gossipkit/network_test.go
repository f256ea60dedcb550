package gossipkit

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	"crossway.dev/crossway/pkg/membership"
)

// A connection that was being dialled when the network was cut does not survive the cut: it
// would keep a whole ring alive, which probes over third nodes.
func TestACutDuringADial(t *testing.T) {
	for what, c := range map[string]struct {
		cut  func(*Network)
		want error
	}{
		"cut":  {func(n *Network) { n.Cut(func(membership.Name, membership.Name) bool { return true }) }, context.Canceled},
		"kill": {func(n *Network) { n.kill("member:b") }, syscall.ECONNREFUSED},
	} {
		t.Run(what, func(t *testing.T) {
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close() //nolint:errcheck // it listens only
			ctx, cancel := context.WithCancel(t.Context())
			n := newNetwork()
			n.at("member:b", socket.Addr().String())
			n.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				c.cut(n)
				cancel() // who dials gives up
				return conn, err
			}
			conn, err := n.dialFrom("member:a")(ctx, "tcp", socket.Addr().String())
			if !errors.Is(err, c.want) {
				t.Errorf("dialled %v, %v; want %v", conn, err, c.want)
			}
			if len(n.pipes) > 0 {
				t.Errorf("%d connections are open", len(n.pipes))
			}
		})
	}
}
