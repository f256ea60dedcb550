package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/replica"
)

// dial returns a connection that is established, if it can be.
func dial(t *testing.T, config *tls.Config, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	conn.Connect()
	return conn
}

// read returns the first Frame.
func read(t *testing.T, conn *grpc.ClientConn) (replica.Frame, error) {
	t.Helper()
	stream, err := open(t, conn, hello{Name: "somebody"})
	if err != nil {
		return replica.Frame{}, err
	}
	var frame replica.Frame
	return frame, stream.RecvMsg(&frame)
}

func open(t *testing.T, conn *grpc.ClientConn, first hello) (grpc.ClientStream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	stream, err := conn.NewStream(ctx, &followStream, followMethod)
	if err != nil {
		return nil, err
	}
	return stream, stream.SendMsg(&first)
}

// strangers are certificates that are no replica's, by what they are.
func (h *hub) strangers() map[string][]registration.Pair {
	by := h.ca.Issuer(time.Now(), rand.Reader)
	edge, err := registration.NewEdgeCertificate(by, registration.EdgeIdentity{Pool: "hub", Region: "us", Zone: "a"}, time.Hour)
	h.Must(err)
	server, err := registration.NewServerCertificate(by, []string{registration.ReplicaServerName})
	h.Must(err)
	other, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	h.Must(err)
	another, err := registration.NewHubReplicaCertificate(registration.Issuer{CA: other, Now: time.Now(), Random: rand.Reader})
	h.Must(err)
	gossip, err := registration.NewReplicaCertificate(by, "hub-a")
	h.Must(err)
	return map[string][]registration.Pair{"no certificate": nil, "an edge's": {edge}, "gossip's": {gossip}, "the xDS server's": {server}, "another CA's": {another}}
}

// Nobody but a replica reads.
func TestStrangersAreNotLetIn(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "secret")
	h.start(t, "hub-b")
	a.expect(t, "hub-b heard")
	for what, pairs := range h.strangers() {
		if frame, err := read(t, dial(t, h.clientTLS(pairs...), a.address)); err == nil {
			t.Errorf("%s: read %v", what, frame)
		}
	}
	if frame, err := read(t, dial(t, h.clientTLS(h.replicaPair(h.ca)), a.address)); err != nil || frame.Name != "hub-a" {
		t.Errorf("a replica reads %v: %v", frame, err)
	}
}

// Nobody but a replica is read, whoever answers at its address.
func TestStrangersAreNotRead(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a")
	b := h.start(t, "hub-b", "one")
	a.expect(t, "hub-b one=one, hub-b heard")
	asked := make(chan string, 100)
	for what, pairs := range h.strangers() {
		config := h.clientTLS(pairs...)
		config.Certificates = append(config.Certificates, h.selfSigned()...)
		h.at("hub-"+strings.ReplaceAll(what, " ", "-"), h.answer(t, config, replica.Frame{Name: "hub-" + what, Whole: true}, asked))
	}
	testkit.Eventually(t, "all to be dialled", func() bool { return len(a.Replicas()) == 6 })
	b.Topic("load").Set("one", []byte("2"))
	a.expect(t, "hub-b one=2")
	time.Sleep(2 * redialInterval)
	for _, r := range a.Replicas() {
		if r.Connected != (r.Name == "hub-b") {
			t.Errorf("%+v", r)
		}
	}
	if len(asked) > 0 {
		t.Errorf("%s got a stream", <-asked)
	}
}

// selfSigned is a certificate for who has none.
func (h *hub) selfSigned() []tls.Certificate {
	other, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	h.Must(err)
	c, err := tls.X509KeyPair(other.Certificate, other.Key)
	h.Must(err)
	return []tls.Certificate{c}
}

// answer serves one Frame to whoever asks.
func (h *hub) answer(t *testing.T, config *tls.Config, frame replica.Frame, asked chan<- string) string {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.Must(err)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.ForceServerCodecV2(codec{}))
	stream := followStream
	stream.Handler = func(_ any, s grpc.ServerStream) error {
		asked <- frame.Name
		err := s.SendMsg(&frame)
		<-s.Context().Done()
		return err
	}
	g.RegisterService(&grpc.ServiceDesc{ServiceName: service().ServiceName, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{stream}}, h)
	go func() { _ = g.Serve(socket) }()
	t.Cleanup(g.Stop)
	return socket.Addr().String()
}

// A replica that sends more than a replica may is not heard, and costs a bounded message.
func TestReplicaThatSendsTooMuch(t *testing.T) {
	h := newHub(t)
	asked := make(chan string, 1000)
	many := replica.Frame{Name: "hub-b", Whole: true}
	for i := range 3 * replica.MaxKeys {
		many.Updates = append(many.Updates, replica.Update{Topic: "load", Key: fmt.Sprint(i)})
	}
	for name, frame := range map[string]replica.Frame{
		"hub-b": many,
		"hub-c": {Name: "hub-c", Whole: true, Updates: []replica.Update{{Topic: "load", Key: "k", Value: make([]byte, 2*maxFrame)}}},
		"hub-d": {Name: "hub-d", Whole: true, Updates: []replica.Update{{Topic: "load", Key: strings.Repeat("k", replica.MaxKeyBytes+1)}}},
	} {
		h.at(name, h.answer(t, h.clientTLS(h.replicaPair(h.ca)), frame, asked))
	}
	h.start(t, "hub-e", "one")
	a := h.start(t, "hub-a")
	testkit.EventuallySeen(t, "the good one to be heard", func() (bool, any) { got := a.all(); return strings.Contains(got, "hub-e one=one, hub-e heard"), got })
	testkit.Eventually(t, "the others to be asked twice", func() bool { return len(asked) >= 6 })
	for _, r := range a.Replicas() {
		if r.Connected != (r.Name == "hub-e") {
			t.Errorf("%+v", r)
		}
	}
}

// Connections that say nothing, and those of who has the certificate and opens too many, keep no replica out.
func TestManyConnections(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one")
	<-a.Settled()
	for range 200 {
		conn, err := net.Dial("tcp", a.address)
		h.Must(err)
		t.Cleanup(func() { _ = conn.Close() })
	}
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	refused := 0
	for range maxConnections + 8 {
		conn := dial(t, h.clientTLS(h.replicaPair(h.ca)), a.address)
		if _, err := read(t, conn); err != nil {
			refused++
		}
	}
	if refused < 8 {
		t.Errorf("%d connections were refused", refused)
	}
	a.Topic("load").Set("one", []byte("2"))
	b.expect(t, "hub-a one=2")
}

// What a reader may send is bounded.
func TestReaderThatSendsTooMuch(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one")
	<-a.Settled()
	conn := dial(t, h.clientTLS(h.replicaPair(h.ca)), a.address)
	stream, err := open(t, conn, hello{Name: strings.Repeat("x", 2*maxHello)})
	if err == nil {
		err = stream.RecvMsg(&replica.Frame{})
	}
	if err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("an oversize request: %v", err)
	}
}

// A reader that reads nothing is let go after a time, and others go on meanwhile.
func TestReaderThatReadsNothing(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a")
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a heard")
	if _, err := open(t, dial(t, h.clientTLS(h.replicaPair(h.ca)), a.address), hello{Name: "hub-c"}); err != nil {
		t.Fatal(err)
	}
	readers := func() int {
		a.Link.mu.Lock()
		defer a.Link.mu.Unlock()
		return len(a.served)
	}
	testkit.Eventually(t, "both to read", func() bool { return readers() == 2 })
	for i := range 8 {
		a.Topic("load").Set(fmt.Sprint(i), make([]byte, replica.MaxValueBytes))
	}
	testkit.Eventually(t, "the good one to have all", func() bool { return strings.Count(b.all(), "hub-a ") == 8 })
	testkit.Eventually(t, "the other to be let go", func() bool { return readers() == 1 })
	b.clear()
	a.Topic("load").Set("0", []byte("2"))
	b.expect(t, "hub-a 0=2")
}
