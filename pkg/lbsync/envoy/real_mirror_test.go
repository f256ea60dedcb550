package envoy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// A copy of a request that crashes whoever reads it is sent once, and costs the client nothing. A copy that could not be
// sent goes to another endpoint: the retry policy is the cluster's, whoever sends.
func TestMirroredRequestsOnARealEnvoy(t *testing.T) {
	e, copies, port := startEdge(t), &crashable{died: map[string][]string{}}, freePort(t)
	store, load := serve("store", backend(t, "store"))
	mirror, _ := serve("mirror", netip.AddrPort{})
	e.apply(lbsync.Program{Assignments: []model.Assignment{store, mirror}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store"),
			Mirrors: []model.Mirror{{Assignment: "mirror", Numerator: 1, Denominator: 1}}}}})}},
		load, lbsync.LoadAssignment{Key: "mirror", Localities: []lbsync.Locality{copies.member(t, model.HTTP1, "a", traffic.TotalParts, 6, 6)}})
	const requests = 12
	for i := range requests {
		if got := ask(t, port, []string{"GET", "POST"}[i%2], "a.example", fmt.Sprintf("/die?%d", i), ""); !strings.HasPrefix(got, "200 store") {
			t.Errorf("a request that is mirrored: %s", got)
		}
	}
	e.wait("a copy of each request", func() bool {
		copies.mu.Lock()
		defer copies.mu.Unlock()
		return len(copies.died) == requests
	})
	copies.mu.Lock()
	defer copies.mu.Unlock()
	for query, names := range copies.died {
		if len(names) != 1 {
			t.Errorf("the copy of request %s reached %s", query, names)
		}
	}
}
