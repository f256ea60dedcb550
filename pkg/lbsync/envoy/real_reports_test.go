package envoy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// A mirror gets bodies that are larger than what an edge keeps of a request.
func TestLargeBodiesAreMirroredOnARealEnvoy(t *testing.T) {
	e, port := startEdge(t), freePort(t)
	var copied atomic.Int64
	shadow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		copied.Add(n)
	}))
	t.Cleanup(shadow.Close)
	store, load := serve("store", backend(t, "store"))
	mirror, mirrorLoad := serve("mirror", netip.MustParseAddrPort(shadow.Listener.Addr().String()))
	e.apply(lbsync.Program{Assignments: []model.Assignment{store, mirror}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store"),
			Mirrors: []model.Mirror{{Assignment: "mirror", Numerator: 1, Denominator: 1}}}}})}}, load, mirrorLoad)
	const size = 200 << 10
	response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/", port), "text/plain", strings.NewReader(strings.Repeat("x", size)))
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	response.Body.Close()
	e.wait("the whole body at the mirror", func() bool { return copied.Load() == size })
}

// A request that is repeated tells the host that the client asked for once.
func TestForwardedHostOfARepeatedRequest(t *testing.T) {
	e, port := startEdge(t), freePort(t)
	var tries atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, r.Header["X-Forwarded-Host"])
	}))
	t.Cleanup(s.Close)
	a, load := serve("a", netip.MustParseAddrPort(s.Listener.Addr().String()))
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{httpListener(port, model.VirtualHost{Hostname: "*",
		Rules: []model.Rule{{Match: prefix("/"), Forward: to("a"), Rewrite: &model.Rewrite{Hostname: "internal.example"}}}})}}, load)
	status, lines := answer(t, port, get("a.example", "/"))
	if status != "200" || !slices.Equal(lines, []string{"[a.example]"}) || tries.Load() != 2 {
		t.Errorf("%s %q after %d tries", status, lines, tries.Load())
	}
}
