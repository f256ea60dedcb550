package delta

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

func invented(n int, prefix string) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint(prefix, i))
	}
	return names
}

// newPool has one resource of each kind.
func newPool() *Pool {
	p := NewPool()
	p.UpdateLoadAssignments(resources("a@1"), nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1"), Listeners: resources("l@1"), Routes: resources("r@1"), Secrets: resources("s@1")})
	return p
}

// A request that says "*" many times costs as much as one that says it once.
func TestManyWildcardsAreOne(t *testing.T) {
	p := NewPool()
	var all []Resource
	for _, name := range invented(2000, "c") {
		all = append(all, Resource{Name: name, Version: "1"})
	}
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: all})
	took := func(stars int) time.Duration { // the best of some, because the machine may be busy
		best := time.Hour
		for range 5 {
			s := p.Open("envoy-0", time.Minute)
			s.Receive(clusters, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"x"}})
			begin := time.Now()
			s.Receive(clusters, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: slices.Repeat([]string{"*"}, stars)})
			best = min(best, time.Since(begin))
			if n := len(s.kinds[clusters].entries); n != 2001 {
				t.Fatalf("%d clusters, want all", n)
			}
			p.Close(s)
		}
		return best
	}
	if one, many := took(1), took(2000); many > 20*one+10*time.Millisecond {
		t.Errorf("one wildcard took %s, 2000 took %s", one, many)
	}
}

// Invented names are remembered up to a number; a resource that exists is always
// served, also to an edge that has asked for too many.
func TestInventedNamesAreBounded(t *testing.T) {
	p := newPool()
	var streams []*Stream
	for i := range 20 {
		s := p.Open(fmt.Sprint("envoy-", i), time.Minute)
		streams = append(streams, s)
		for k := range kinds {
			held := map[string]string{}
			for _, name := range invented(5000, "held") {
				held[name] = strings.Repeat("v", 1000)
			}
			s.Receive(k, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: held, ResourceNamesSubscribe: invented(5000, "asked")})
			s.Receive(k, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: append(invented(5000, "later"), strings.Repeat("n", 1<<20))})
		}
	}
	total, longest := 0, 0
	for _, s := range streams {
		total += s.names()
		for k := range s.kinds {
			for name, e := range s.kinds[k].entries {
				longest = max(longest, len(name)+len(e.sent))
			}
		}
	}
	if total > 6*maxSpareNames+20*minSpareNames || longest > maxNameLength+maxOldVersionLength {
		t.Errorf("%d names are remembered, the longest with its version has %d bytes", total, longest)
	}
	last := streams[len(streams)-1]
	last.Receive(routes, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"r"}})
	if e := last.kinds[routes].entries["r"]; e == nil || !e.subscribed {
		t.Error("a route that exists is refused")
	}
}

// An edge that has far more than exists, because its pool has lost most of it, is
// asked to remove all of it.
func TestAllThatIsGoneIsRemoved(t *testing.T) {
	p := newPool()
	s := p.Open("envoy-0", time.Minute)
	held := map[string]string{"l": "1"}
	for _, name := range invented(maxSpareNames+5000, "old") {
		held[name] = "1"
	}
	s.Receive(clusters, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"a": "1"}})
	s.Receive(listeners, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: held})
	s.Next(noon) // the empty answer for clusters
	r, _ := s.Next(noon)
	if len(r.RemovedResources) != len(held)-1 || !slices.IsSorted(r.RemovedResources) {
		t.Errorf("%d of %d listeners are removed", len(r.RemovedResources), len(held)-1)
	}
	if r, _ := s.Next(noon); r != nil {
		t.Errorf("then %s", describe(r))
	}
}

// Names beyond those that a stream remembers are kept until they are sent as removed,
// which an edge can put off by answering nothing: they are bounded as well.
func TestUntrackedNamesAreBounded(t *testing.T) {
	p := newPool()
	size := 0
	for i := range 100 {
		s := p.Open(fmt.Sprint("envoy-", i), time.Minute)
		held := map[string]string{strings.Repeat("n", 1<<20): "1"}
		for _, name := range invented(3000, strings.Repeat("n", 1000)) {
			held[name] = "1"
		}
		s.Receive(clusters, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: held})
		for _, name := range s.kinds[clusters].untracked {
			size += len(name)
		}
	}
	if most := 6*maxUntrackedSize + 100*minUntrackedSize; size > most || size == 0 {
		t.Errorf("%d bytes of names are kept, want at most %d", size, most)
	}
}

// An edge that never answers does not make the hub remember each response.
func TestUnansweredResponsesAreBounded(t *testing.T) {
	p := NewPool()
	var all []Resource
	for _, name := range invented(500, "c") {
		all = append(all, Resource{Name: name, Version: "1"})
	}
	p.UpdateLoadAssignments(all, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: all, Routes: all})
	s := p.Open("envoy-0", time.Minute)
	names := invented(500, "c")
	for range 100 {
		for _, k := range []Kind{clusters, assignments} {
			s.Receive(k, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: names})
		}
		for range 600 {
			s.Next(noon)
		}
	}
	for _, k := range []Kind{clusters, assignments} {
		n := 0
		for _, r := range s.kinds[k].inFlight {
			n += len(r.items)
		}
		if n > maxInFlight+3*len(all) || n != s.kinds[k].unanswered {
			t.Errorf("%d unanswered %ss, counted as %d", n, k, s.kinds[k].unanswered)
		}
	}
}

// The messages of NACKs are kept up to a length, and those of closed streams up to
// a number.
func TestNacksAreBounded(t *testing.T) {
	p := NewPool()
	var all []Resource
	for _, name := range invented(500, "s") {
		all = append(all, Resource{Name: name, Version: "1"})
	}
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Secrets: all})
	detail := &rpcstatus.Status{Message: strings.Repeat("é", 100_000)}
	for i := range 40 {
		s := p.Open(fmt.Sprint("envoy-", i), time.Minute)
		s.Receive(secrets, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: invented(500, "s")})
		for range 500 {
			r, _ := s.Next(noon)
			s.Receive(secrets, &discovery.DeltaDiscoveryRequest{ResponseNonce: r.Nonce, ErrorDetail: detail})
		}
		text := 0
		for _, nack := range s.Progress().Nacks {
			text += len(nack.Message)
		}
		if n := len(s.Progress().Nacks); n != 500 || text > (maxLongMessages+1)*maxMessageLength+500*minMessageLength {
			t.Fatalf("%d NACKs have %d bytes of text", n, text)
		}
		p.Close(s)
		p.Close(s)
	}
	kept := 0
	for _, nacks := range p.nacks {
		kept += len(nacks)
	}
	if kept > maxRememberedNacks || kept != p.remembered || kept == 0 {
		t.Errorf("%d NACKs are remembered, counted as %d", kept, p.remembered)
	}
}
