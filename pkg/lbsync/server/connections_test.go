package server

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// source gives as many bytes as are asked for.
type source struct{ net.Conn }

func (source) Read(b []byte) (int, error) { return len(b), nil }
func (source) Close() error               { return nil }

// Requests that are begun and not finished are bounded for all connections of a
// pool together; connections without much of them, and other pools, go on.
func TestUnfinishedRequestsAreBounded(t *testing.T) {
	all := newConnections(Config{Authorize: func(registration.EdgeIdentity) error { return nil }})
	connect := func(pool string) *edgeConnection {
		leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: "crossway", Path: "/edge/" + pool + "/us/us-a"}}}
		c, err := all.add(source{}, credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	megabyte := make([]byte, 1<<20)
	reads := func(c *edgeConnection, megabytes int) error {
		for range megabytes {
			if _, err := c.Read(megabyte); err != nil {
				return err
			}
		}
		return nil
	}
	honest, other := connect("us"), connect("eu")
	var hostile []*edgeConnection
	for range 16 {
		c := connect("us")
		hostile = append(hostile, c)
		if err := reads(c, 8); err != nil {
			t.Fatalf("8 MB on each of 16 connections: %v", err)
		}
	}
	if err := reads(hostile[0], 1); !errors.Is(err, errUnfinished) {
		t.Errorf("one MB more: %v", err)
	}
	if err := errors.Join(reads(honest, 2), reads(other, 16)); err != nil {
		t.Errorf("another connection: %v", err)
	}
	honest.finished(2 << 20)
	if err := reads(honest, 2); err != nil {
		t.Errorf("its next request: %v", err)
	}
	for _, c := range append(hostile, honest, other) {
		c.Close()
		c.Close()
	}
	for name, pool := range all.pools {
		if pool.open != 0 || pool.unfinished != 0 {
			t.Errorf("pool %s: %d connections and %d bytes are left", name, pool.open, pool.unfinished)
		}
	}
}

// Where edges have so many workers that their connections for usage are all that a pool may have, one of these makes room
// for an edge's configuration.
func TestUsageKeepsNoEdgeOut(t *testing.T) {
	all, s := newConnections(Config{Authorize: func(registration.EdgeIdentity) error { return nil }}), New(Config{Authorize: func(registration.EdgeIdentity) error { return nil }, MaxEdges: 250})
	leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: "crossway", Path: "/edge/us/us/us-a"}}}
	state := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	connect := func(what ...service) (*edgeConnection, error) {
		c, err := all.add(source{}, state)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		for _, one := range what {
			open, err := s.openSession(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: edgeAuth{state, c}}), one)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { s.closeSession(open) })
		}
		return c, nil
	}
	first, err := connect(usage, configuration)
	testkit.Must(t, err)
	var workers []*edgeConnection
	for range maxConnections - 1 {
		worker, err := connect(usage)
		testkit.Must(t, err)
		workers = append(workers, worker)
	}
	edge, err := connect(configuration, load, usage)
	testkit.Must(t, err)
	if first.closed || edge.closed || !workers[0].closed || workers[1].closed || all.pools["us"].open != maxConnections {
		t.Errorf("not the oldest connection for usage made room; %d are open", all.pools["us"].open)
	}
	for _, worker := range workers[1:] {
		worker.opens(load)
	}
	if _, err := connect(); !errors.Is(err, errTooManyConnections) {
		t.Errorf("one more than %d that have configuration or load reports: %v", maxConnections, err)
	}
}

// The connections of a pool send no faster than edges need to.
func TestReceivedBytesAreLimited(t *testing.T) {
	all := newConnections(Config{Authorize: func(registration.EdgeIdentity) error { return nil }})
	leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}
	c, err := all.add(source{}, credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if wait, _ := c.received(receiveBurst); wait > 0 {
		t.Errorf("the first bytes wait %s", wait)
	}
	if wait, _ := c.received(receiveRate); wait < 500*time.Millisecond {
		t.Errorf("a second's bytes more wait %s", wait)
	}
}

// A publisher does not wait for a pool that is busy: who has the pool takes over
// what was published.
func TestPublisherDoesNotWait(t *testing.T) {
	p := newPool("us", 1, func(string) {})
	p.lock()
	published := make(chan struct{})
	go func() {
		p.setResources(Snapshot{Generation: 7})
		p.updateLoadAssignments(nil, nil)
		close(published)
	}()
	select {
	case <-published:
	case <-time.After(10 * time.Second):
		t.Fatal("a publisher waits for a busy pool")
	}
	p.unlock()
	if len(p.published) > 0 {
		t.Error("nobody has taken over what was published")
	}
	if text := p.describe(); !strings.HasPrefix(text, "snapshot 7: 0 cluster 0 assignment") {
		t.Errorf("what was published is not there: %s", text)
	}
}

// Of two streams of one edge that begin together, the one that says so last stays.
func TestOlderStreamDoesNotReplaceTheNewer(t *testing.T) {
	p := newPool("us", 1, func(string) {})
	older, newer, edge := &session{service: configuration}, &session{service: configuration}, Edge{Node: "envoy-0"}
	for _, s := range []*session{older, newer} {
		if _, err := p.claim(s, edge); err != nil {
			t.Fatal(err)
		}
	}
	if p.open(newer, edge, time.Second) == nil || p.open(older, edge, time.Second) != nil {
		t.Error("the older stream took the place of the newer one")
	}
	p.release(older)
	if !p.holds(newer, edge) {
		t.Error("the end of the older stream took the newer one's claim")
	}
}

// Connections of a revoked credential take no place of the pool's edges, however many they are.
func TestRevokedConnectionsKeepNobodyOut(t *testing.T) {
	all := newConnections(Config{Authorize: func(id registration.EdgeIdentity) error {
		if id.Credential == "revoked001" {
			return errors.New("revoked")
		}
		return nil
	}})
	connect := func(credential string) error {
		leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{SerialNumber: credential},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "crossway", Path: "/edge/us/us/us-a"}}}
		c, err := all.add(source{}, credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}})
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	}
	for range maxConnections {
		testkit.Must(t, connect("revoked001"))
	}
	if err := connect("revoked001"); !errors.Is(err, errTooManyConnections) {
		t.Errorf("one more of the revoked ones: %v", err)
	}
	testkit.Must(t, connect("abcdefghi1"))
}

// A connection whose certificate an old CA has signed ends after a while, so that its edge comes back with a new one: those
// that are open when the server's own certificate changes, and later ones.
func TestConnectionsOfAnOldCAEnd(t *testing.T) {
	all := newConnections(Config{Authorize: func(registration.EdgeIdentity) error { return nil }, OldCALife: 20 * time.Millisecond})
	connect := func(ca string) *edgeConnection {
		leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), Issuer: pkix.Name{CommonName: ca}}
		c, err := all.add(source{}, credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}})
		testkit.Must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	open := func(c *edgeConnection) bool {
		all.mu.Lock()
		defer all.mu.Unlock()
		return !c.closed
	}
	all.setCA("one")
	first := connect("one")
	all.setCA("two")
	second, later := connect("two"), connect("one")
	testkit.Eventually(t, "those of the old CA are closed", func() bool { return !open(first) && !open(later) })
	if !open(second) {
		t.Error("a connection of the new CA was closed, too")
	}
}
