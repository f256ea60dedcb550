package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/replica"
)

var secretName = types.NamespacedName{Namespace: "crossway-system", Name: registration.ReplicaSecret}

// secrets is an informer of one Secret.
type secrets struct {
	cache.Informers
	cache.Informer
	mu       sync.Mutex
	handlers []toolscache.ResourceEventHandler
	last     *corev1.Secret
}

func (s *secrets) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return s, nil
}

func (s *secrets) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = append(s.handlers, h)
	if s.last != nil {
		h.OnAdd(s.last, true)
	}
	return nil, nil
}

func (s *secrets) RemoveEventHandler(toolscache.ResourceEventHandlerRegistration) error { return nil }

// set is what the Signer writes.
func (s *secrets) set(pair registration.Pair, bundle []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.last
	s.last = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secretName.Namespace, Name: secretName.Name}, Data: map[string][]byte{
		corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key, registration.CAKey: bundle}}
	for _, h := range s.handlers {
		if before == nil {
			h.OnAdd(s.last, false)
		} else {
			h.OnUpdate(before, s.last)
		}
	}
}

// hub is the CA of some replicas, and where they are.
type hub struct {
	testkit.T
	ca      registration.CA
	secrets *secrets

	mu    sync.Mutex
	peers map[string]string
}

func newHub(t *testing.T) *hub {
	t.Helper()
	pair, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	h := &hub{T: testkit.T{TB: t}, ca: registration.CA{Pair: pair}, secrets: &secrets{}, peers: map[string]string{}}
	h.secrets.set(h.replicaPair(h.ca), h.ca.Bundle())
	return h
}

func (h *hub) replicaPair(ca registration.CA) registration.Pair {
	pair, err := registration.NewHubReplicaCertificate(ca.Issuer(time.Now(), rand.Reader))
	h.Must(err)
	return pair
}

func (h *hub) list(context.Context) ([]replica.Peer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []replica.Peer
	for name, address := range h.peers {
		out = append(out, replica.Peer{Name: name, Address: address})
	}
	return out, nil
}

// at says where a replica is; "": nowhere.
func (h *hub) at(name, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peers[name] = address; address == "" {
		delete(h.peers, name)
	}
}

// process is a replica that runs.
type process struct {
	*Link
	diary
	address string
	stop    func()
}

// diary writes down what an Observer of topic "load" is told.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, ", ")
}

func (d *diary) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = nil
}

// expect waits until exactly this was told.
func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	testkit.EventuallySeen(t, p.Name()+" to be told: "+want, func() (bool, any) { got := p.all(); return got == want, got })
	p.clear()
}

func (d *diary) observer() replica.Observer {
	state := func(what string) func(string) { return func(from string) { d.note("%s %s", from, what) } }
	return replica.Observer{
		Changed: func(from, key string, value []byte) { d.note("%s %s=%.20s", from, key, value) },
		Deleted: func(from, key string) { d.note("%s %s deleted", from, key) },
		Unknown: func(from, key string) { d.note("%s %s unknown", from, key) },
		Heard:   state("heard"), Silent: state("silent"), Leaving: state("leaving"), Gone: state("gone"),
	}
}

// start runs a replica with values of topic load.
func (h *hub) start(t *testing.T, name string, values ...string) *process {
	t.Helper()
	p := h.prepared(t, name, values...)
	p.run(t)
	return p
}

func (h *hub) prepared(t *testing.T, name string, values ...string) *process {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.Must(err)
	p := &process{address: socket.Addr().String()}
	h.Must(socket.Close())
	p.Link = New(Config{Name: name, Version: "v1", Address: p.address, Peers: h.list, Informers: h.secrets, Secret: secretName, Log: logr.Discard()})
	p.Topic("load").Subscribe(p.observer())
	for _, value := range values {
		p.Topic("load").Set(value, []byte(value))
	}
	h.at(name, p.address)
	return p
}

func (p *process) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Start(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
}

// clientTLS is that of somebody who has a certificate of a CA of the hub's.
func (h *hub) clientTLS(pairs ...registration.Pair) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.ca.Bundle())
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: registration.ReplicaServerName, NextProtos: []string{"h2"}}
	for _, pair := range pairs {
		certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		h.Must(err)
		config.Certificates = append(config.Certificates, certificate)
	}
	return config
}

// wire forwards connections, until it is cut: then it says nothing, as a network does.
type wire struct {
	address string
	mu      sync.Mutex
	cut     bool
	conns   []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	w := &wire{address: socket.Addr().String()}
	t.Cleanup(func() {
		_ = socket.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			a, err := socket.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			w.mu.Lock()
			w.conns = slices.Concat(w.conns, []net.Conn{a, b})
			w.mu.Unlock()
			go w.copy(a, b)
			go w.copy(b, a)
		}
	}()
	return w
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *wire) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			_ = to.Close()
			return
		}
		w.mu.Lock()
		cut := w.cut
		w.mu.Unlock()
		if cut {
			continue // lost, and so the connection is of no use any more
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
