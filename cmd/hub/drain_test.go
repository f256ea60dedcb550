package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// A replica that is asked to stop is not ready at once, sends its edge to the other one, and ends; the edge serves all the
// time. Then the other one is asked to stop: it is alone, and ends at once.
func TestReplicaDrains(t *testing.T) {
	f := newFixture(t)
	a, b := f.beside(), f.beside()
	serveFront(t, f.xds, a, b)
	a.startAmong("hub-a")
	f.health, f.debug = a.health, a.debug
	at, _ := f.serve()
	b.startAmong("hub-b")
	testkit.Eventually(t, "the second one to be ready", b.ready)
	for _, r := range []*fixture{a, b} {
		testkit.EventuallySeen(t, "both to hear each other", func() (bool, any) {
			text := textAt("http://" + r.debug + "/debug/replicas")
			return strings.Contains(text, ": connected, "), text
		})
	}
	failed := f.askUntil(t.Context(), at)
	begin := time.Now()
	testkit.Must(t, a.hub.Process.Signal(syscall.SIGTERM))
	testkit.Eventually(t, "not to be ready", func() bool { return !a.ready() })
	notReady := time.Since(begin)
	testkit.Eventually(t, "the edge to come to the other replica", b.hasEdge)
	testkit.Must(t, a.hub.Wait())
	t.Logf("not ready after %s, ended after %s", notReady, time.Since(begin))
	testkit.EventuallySeen(t, "the other replica to know", func() (bool, any) {
		text := textAt("http://" + b.debug + "/debug/replicas")
		return strings.Contains(text, ": silent, leaving, "), text
	})
	if n := failed(); n != 0 {
		t.Errorf("%d requests failed", n)
	}
	testkit.Must(t, b.hub.Process.Signal(syscall.SIGTERM))
	testkit.Must(t, b.hub.Wait())
	for _, r := range []*fixture{a, b} {
		log, err := os.ReadFile(r.log)
		testkit.Must(t, err)
		if drained := strings.Contains(string(log), "sending edges and members to other replicas"); drained != (r == a) {
			t.Errorf("%s: sent edges to others: %v", r.log, drained)
		}
	}
}

// hasEdge says whether the replica serves the Envoy.
func (f *fixture) hasEdge() bool {
	return strings.Contains(textAt("http://"+f.debug+"/debug/edges"), "envoy-0")
}

// askUntil sends requests until the result is called, which is how many failed.
func (f *fixture) askUntil(ctx context.Context, at string) (failed func() int) {
	ctx, stop := context.WithCancel(ctx)
	done, n := make(chan struct{}), 0
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if status, body := ask(at, "store.example.com", "/"); status != 200 {
				f.t.Logf("a request failed: %d %s", status, body)
				n++
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() int { stop(); <-done; return n }
}

// serveFront forwards connections to replicas that are ready, in turn, as the hub's Service does.
func serveFront(t *testing.T, address string, replicas ...*fixture) {
	t.Helper()
	socket, err := net.Listen("tcp", address)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		for turn := 0; ; turn++ {
			client, err := socket.Accept()
			if err != nil {
				return
			}
			var server net.Conn
			for i := 0; i < len(replicas) && server == nil; i++ {
				if r := replicas[(turn+i)%len(replicas)]; r.ready() {
					server, _ = net.Dial("tcp", r.xds)
				}
			}
			if server == nil {
				_ = client.Close()
				continue
			}
			close := sync.OnceFunc(func() { _, _ = client.Close(), server.Close() })
			go func() { _, _ = io.Copy(server, client); close() }()
			go func() { _, _ = io.Copy(client, server); close() }()
		}
	}()
}
