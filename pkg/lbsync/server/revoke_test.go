package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"crossway.dev/crossway/pkg/lbsync/server"
)

func (h *hub) revoke(credential string) {
	h.mu.Lock()
	h.revoked = credential
	h.mu.Unlock()
	h.Reauthorize()
}

// Revoking a credential ends the streams of every service that are open with it, refuses new ones, on the old connection
// and on a new one, with the certificate and with a renewed one. Edges with another credential of the pool go on.
func TestRevokedCredential(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1"))
	connection := h.dial(h.certificate(usEdge))
	thief := open(t, connection, "thief")
	thief.asks(resourcev3.ClusterType, nil)
	thief.takes("Cluster a@1")
	other := usEdge
	other.Credential = "abcdefghi2"
	honest := open(t, h.dial(h.certificate(other)), "envoy-0")
	honest.asks(resourcev3.ClusterType, nil)
	honest.takes("Cluster a@1")
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	loads, err := loadstats.NewLoadReportingServiceClient(connection).StreamLoadStats(ctx)
	check(t, err)
	check(t, loads.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "thief"}}))
	_, err = loads.Recv()
	check(t, err)
	usages := openUsage(t, connection)
	check(t, usages.Send(uses("thief", "a")))

	h.revoke(usEdge.Credential)
	ended := func(what string, err error) {
		t.Helper()
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "is revoked") {
			t.Errorf("%s ended with %v, want PermissionDenied", what, err)
		}
	}
	timer := time.AfterFunc(timeout, thief.cancel)
	defer timer.Stop()
	_, err = thief.stream.Recv()
	ended("the stream of configuration", err)
	_, err = loads.Recv()
	ended("that of load reports", err)
	_, err = usages.CloseAndRecv()
	ended("that of usage", err)
	h.waitFor("disconnected thief")
	for name, again := range map[string]error{
		"a stream with the certificate": asksForAll(h.dial(h.certificate(usEdge))),
		"load of a renewed one":         reportsLoad(h.dial(h.certificate(usEdge))),
	} {
		ended(name, again)
	}
	honest.getsNothing() // its stream is open
}

// The connection of a revoked credential is closed, not only its streams.
func TestConnectionOfRevokedCredentialIsClosed(t *testing.T) {
	h := newHub(t, server.Config{})
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: h.roots(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{h.certificate(usEdge)}}}
	conn, err := dialer.DialContext(t.Context(), "tcp", h.address)
	check(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	check(t, err)
	first := make([]byte, 1)
	_, err = conn.Read(first) // SETTINGS: the hub has the connection
	check(t, err)
	h.revoke(usEdge.Credential)
	const wait = 6 * time.Second // after 8 s it is closed in any case, because it answers no PING
	check(t, conn.SetReadDeadline(time.Now().Add(wait)))
	_, err = io.Copy(io.Discard, conn)
	var failure net.Error
	if errors.As(err, &failure) && failure.Timeout() {
		t.Errorf("the connection is still open after %s", wait)
	}
}
