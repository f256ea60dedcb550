package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// readerChanges is how many changes are followed to all readers.
const readerChanges = 50

// memberAPIPaths are what an agent watches there.
var memberAPIPaths = []string{"/apis/multicluster.x-k8s.io/v1beta1/serviceimports", "/apis/discovery.k8s.io/v1/endpointslices"}

// reader reads the member API as a member's agent does, and keeps nothing.
type reader struct {
	member *mockMember
	bytes  atomic.Int64
	await  atomic.Pointer[awaited]
}

// awaited is a text that all readers wait for.
type awaited struct {
	text []byte
	left atomic.Int32
	done chan time.Time
}

// read starts a reader for each member, all at once, and measures how long they take to have everything and then how
// long single changes take to all of them.
func (s *Scale) read(ctx context.Context) error {
	whole := make(chan error, len(s.members)*len(memberAPIPaths))
	before := s.hubCPU()
	began := time.Now()
	for _, m := range s.members {
		r := &reader{member: m}
		transport, place, err := s.memberAPI(ctx, m)
		if err != nil {
			return err
		}
		s.readers = append(s.readers, r)
		for _, path := range memberAPIPaths {
			go r.watch(s.life, transport, place[v1alpha1.MemberAPIAddress]+path, whole)
		}
	}
	for range cap(whole) {
		select {
		case err := <-whole:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("wait until all readers have everything: %w", ctx.Err())
		}
	}
	s.figures["scale_readers_whole_s"] = Value(time.Since(began).Seconds())
	s.figures["scale_readers_cpu_s"] = Value((s.hubCPU() - before).Seconds())
	sum := int64(0)
	for _, r := range s.readers {
		sum += r.bytes.Load()
	}
	s.figures["scale_reader_mb"] = Value(float64(sum) / float64(len(s.readers)) / 1e6)
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.changesToReaders(ctx)
}

func (s *Scale) hubCPU() (sum time.Duration) {
	for _, p := range findHubs() {
		sum += p.cpu()
	}
	return sum
}

// memberAPI is what a member is told of where it reads, and a transport with its credential.
func (s *Scale) memberAPI(ctx context.Context, m *mockMember) (*http.Transport, map[string]string, error) {
	var place corev1.ConfigMap
	if err := m.agent.Get(ctx, client.ObjectKey{Namespace: m.namespace(), Name: v1alpha1.MemberAPIConfigMap}, &place); err != nil {
		return nil, nil, err
	}
	certificate, err := tls.X509KeyPair(m.config.CertData, m.config.KeyData)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(place.Data[v1alpha1.MemberAPICA]))
	return &http.Transport{DialContext: s.fleet.Dialer(s.fleet.Regions[0]), ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots}}, place.Data, nil
}

// watch reads one kind, again and again until ctx ends. whole is told once, when the first initial events have come.
func (r *reader) watch(ctx context.Context, transport *http.Transport, url string, whole chan<- error) {
	var once sync.Once
	tell := func(err error) { once.Do(func() { whole <- err }) }
	for failures := 0; ctx.Err() == nil; failures++ {
		err := r.events(ctx, transport, url+"?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", func() { tell(nil) })
		if failures == 20 {
			tell(fmt.Errorf("member %s cannot watch %s: %w", r.member.name(), url, err))
		}
		_ = pause(ctx, 300*time.Millisecond)
	}
}

func (r *reader) events(ctx context.Context, transport *http.Transport, url string, whole func()) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 300)) // of an error
		return fmt.Errorf("%s: %s", answer.Status, text)
	}
	lines := bufio.NewReaderSize(answer.Body, 1<<18)
	for initial := true; ; {
		line, err := lines.ReadSlice('\n')
		r.bytes.Add(int64(len(line)))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if initial && bytes.Contains(line, []byte(metav1.InitialEventsAnnotationKey)) {
			initial = false
			whole()
		}
		if a := r.await.Load(); a != nil && bytes.Contains(line, a.text) && r.await.CompareAndSwap(a, nil) && a.left.Add(-1) == 0 {
			a.done <- time.Now()
		}
	}
}

// changesToReaders measures how long single changes take until all readers but the member's own have them.
func (s *Scale) changesToReaders(ctx context.Context) error {
	var took []time.Duration
	for i := range readerChanges {
		s.turn++
		m := s.members[i*11%len(s.members)]
		last := m.anotherLast(s.turn)
		a := &awaited{text: []byte(`"` + last.String() + `"`), done: make(chan time.Time, 1)}
		for _, r := range s.readers {
			if r.member != m {
				a.left.Add(1)
				r.await.Store(a)
			}
		}
		began := time.Now()
		if err := m.write(ctx, i%len(m.exports), last); err != nil {
			return err
		}
		select {
		case at := <-a.done:
			took = append(took, at.Sub(began))
		case <-time.After(20 * time.Second):
			return fmt.Errorf("change %d, of %s in %s: %d readers lack it", i, m.exports[i%len(m.exports)].name, m.name(), a.left.Load())
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := pause(ctx, gap); err != nil {
			return err
		}
	}
	s.figures["scale_slice_to_readers_ms"] = Millis(took)
	return nil
}
