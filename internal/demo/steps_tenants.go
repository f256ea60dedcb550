package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// tenantHosts is more than the number of hostnames from which some control planes serve a port in another way.
const tenantHosts = 60

// tenants opens WebSockets of one team in both regions, with and without TLS. Then another team adds and removes hostnames
// and a wildcard, the platform team listeners, and the certificate is renewed. It counts the WebSockets that are closed
// once the edges' drain time of 3 s is over.
func (s *Story) tenants(ctx context.Context) error {
	var sockets []*webSocket
	for range 2 {
		for region := range s.addresses {
			for _, secure := range []bool{false, true} {
				socket, err := s.openWebSocket(ctx, region, "store.example.com", secure)
				if err != nil {
					return fmt.Errorf("open a WebSocket in %s: %w", region, err)
				}
				defer socket.Close()
				sockets = append(sockets, socket)
			}
		}
	}
	changes, err := s.changeTenants(ctx)
	if err != nil {
		return err
	}
	sleep(ctx, 6*time.Second)
	closed := 0
	for _, socket := range sockets {
		if err := socket.echo(); err != nil {
			s.note("a WebSocket was closed: %v", err)
			closed++
		}
	}
	s.set("tenant_websockets", float64(len(sockets)))
	s.set("tenant_websockets_closed", float64(closed))
	s.set("tenant_changes", float64(changes))
	return nil
}

// changeTenants returns how many objects others made, changed or removed.
func (s *Story) changeTenants(ctx context.Context) (changes int, err error) {
	type tenant struct{ Name, Hostname string }
	routes := []tenant{{"wild", "*.tenants.example.com"}}
	for i := range tenantHosts {
		routes = append(routes, tenant{fmt.Sprint(i), fmt.Sprintf("tenant-%d.example.com", i)})
	}
	patch := func(operations string) error {
		_, err := s.Lab.Hub.Kubectl(ctx, nil, "patch", "gateway", "-n", "infra", "shared", "--type=json", "-p", operations)
		return err
	}
	removal := `{"op": "remove", "path": "/spec/listeners/0"}`
	for _, step := range []struct {
		changes int
		do      func() error
	}{
		{tenantHosts, func() error { return s.Lab.Hub.Apply(ctx, render("tenants.yaml", routes[1:])) }},
		{1, func() error { return s.Lab.Hub.Apply(ctx, render("tenants.yaml", routes[:1])) }},
		{2, func() error { return patch(string(render("tenants-listeners.yaml", nil))) }},
		{1, func() error { return s.certificate(ctx) }},
		{tenantHosts + 1, func() error { return s.Lab.Hub.Delete(ctx, render("tenants.yaml", routes)) }},
		{2, func() error { return patch("[" + removal + "," + removal + "]") }},
	} {
		if err := step.do(); err != nil {
			return 0, err
		}
		changes += step.changes
		sleep(ctx, 500*time.Millisecond) // the edges have it
	}
	return changes, nil
}

// webSocket is an upgraded connection; the echo pods send back what comes.
type webSocket struct {
	net.Conn
	reader *bufio.Reader
}

func (s *Story) openWebSocket(ctx context.Context, region, host string, secure bool) (*webSocket, error) {
	port := ":80"
	if secure {
		port = ":443"
	}
	conn, err := s.Lab.Dialer(region)(ctx, "tcp", s.addresses[region]+port)
	if err != nil {
		return nil, err
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.roots, ServerName: host, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", host)
	socket := &webSocket{conn, bufio.NewReader(conn)}
	response, err := http.ReadResponse(socket.reader, nil)
	if err == nil {
		_ = response.Body.Close() // a 101 has none
		if response.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("answered %s", response.Status)
		}
	}
	if err == nil {
		err = socket.echo()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return socket, nil
}

// echo sends a line and reads it back.
func (w *webSocket) echo() error {
	_ = w.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		return err
	}
	_, err := w.reader.ReadString('\n')
	return err
}
