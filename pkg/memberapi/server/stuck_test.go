package server

import (
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/pkg/memberapi"
)

const stuckObjects, stuckReaders = 10_000, 100

// stuckReader opens a watch of all slices and never reads.
func (f *fixture) stuckReader(cluster string) {
	f.TB.Helper()
	raw, err := net.Dial("tcp", f.address)
	f.Must(err)
	f.TB.Cleanup(func() { raw.Close() })
	f.Must(raw.(*net.TCPConn).SetReadBuffer(4096))
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	_, err = fmt.Fprintf(conn, "GET %s?watch=true HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer %s\r\n\r\n", slicesPath, userOf(cluster))
	f.Must(err)
}

// pushAll pushes all slices, each with one address of a round.
func (f *fixture) pushAll(round int) {
	slices := map[memberapi.SliceKey]*discoveryv1.EndpointSlice{}
	for i := range stuckObjects {
		s := sliceOf("a", "shop", "web", fmt.Sprintf("10.97.%d.%d", round, i%250))
		s.Name = fmt.Sprint("web-", i)
		for range 3 {
			s.Endpoints = append(s.Endpoints, s.Endpoints[0])
		}
		slices[memberapi.SliceKey{Namespace: s.Namespace, Name: s.Name}] = s
	}
	f.inbox.Add(func(p *pending) { p.slices = slices })
	f.pass()
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// Readers that read nothing cost a bounded amount of memory, whatever changes meanwhile, and delay nobody.
func TestStuckReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 10,000 objects")
	}
	f := newFixture(t)
	f.member("a", "shop")
	for i := range stuckReaders {
		f.member(fmt.Sprint("b-", i), "shop")
	}
	f.export("shop", "web", "a")
	f.pushAll(0)
	before := heap()
	for i := range stuckReaders {
		f.stuckReader(fmt.Sprint("b-", i))
	}
	open := func() (n int) {
		f.openMu.Lock()
		defer f.openMu.Unlock()
		for _, c := range f.open {
			n += c.watches.Len()
		}
		return n
	}
	f.Eventually("all watches are open", func() bool { return open() == stuckReaders })
	for round := range 5 {
		f.pushAll(round + 1)
	}
	opened, grown := open(), int64(heap())-int64(before)
	t.Logf("%d stuck watches, %d objects changed five times: %d KB more", opened, stuckObjects, grown>>10)
	if grown > 64<<20 {
		t.Errorf("%d MB for %d readers", grown>>20, stuckReaders)
	}
	w := f.openWatch(userOf("a"), fmt.Sprintf("%s?resourceVersion=%d", slicesPath, f.state.Version()))
	f.push("a", "shop", "web", "10.97.9.9")
	f.pass()
	w.expect("ADDED web-")
}
