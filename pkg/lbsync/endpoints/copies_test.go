package endpoints

import (
	"fmt"
	"maps"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway/model"
)

// copiesIn are the endpoints that an edge of us has for the assignments of a namespace, the least number of one of them,
// and their addresses.
func (f *fixture) copiesIn(namespace string) (total, least int, addresses map[string]bool) {
	f.t.Helper()
	least, addresses = 1<<30, map[string]bool{}
	for key, r := range f.edges.pools["us"] {
		if a, _ := f.state.Assignment(key); a.Route.Name.Namespace != namespace {
			continue
		}
		load := new(endpointv3.ClusterLoadAssignment)
		testkit.Must(f.t, r.Body.UnmarshalTo(load))
		n := 0
		for _, l := range load.GetEndpoints() {
			n += len(l.GetLbEndpoints())
			for _, e := range l.GetLbEndpoints() {
				addresses[e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()] = true
			}
		}
		total, least = total+n, min(least, n)
	}
	return total, least, addresses
}

// Routes of one namespace make a bounded number of copies of endpoints, however many Envoy clusters refer to an import or
// have it as a spare, and however many endpoints it has later. No cluster loses a member, and nearly every endpoint is in
// some cluster. Clusters of other namespaces have all endpoints.
func TestRoutesDoNotMultiplyEndpoints(t *testing.T) {
	const imports, clusters = 8, 200
	f := newFixture(t)
	grow := func(each int) {
		for i := range imports {
			for c, cluster := range []string{"us-west", "us-east", "eu-west"} {
				var addresses []string
				for k := range each {
					addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d", c+1, 16*i+k/200, k%200+1))
				}
				f.slice(memberSlice(cluster, fmt.Sprint("s", i), addresses...))
			}
		}
		f.run()
	}
	grow(4)
	assignments := []model.Assignment{assignmentOf("other", "s0", "s1")}
	assignments[0].Route.Name.Namespace = "other"
	for n := range clusters {
		a := assignmentOf(fmt.Sprint("a", n), fmt.Sprint("s", n%imports))
		for i := range imports {
			if i != n%imports {
				a.Fallback = append(a.Fallback, assignmentOf("", fmt.Sprint("s", i)).Backends...)
			}
		}
		assignments = append(assignments, a)
	}
	f.SetAssignments(assignments, nil)
	f.run()
	if total, least, _ := f.copiesIn("shop"); least != 3*4+(imports-1)*2*4 || total != clusters*least {
		t.Errorf("few endpoints are thinned: %d in all, %d in one", total, least)
	}
	f.edges.takeChanged()
	for _, each := range []int{30, 100} {
		grow(each)
		total, least, addresses := f.copiesIn("shop")
		t.Logf("%d endpoints: %d copies, at least %d in a cluster", 3*each*imports, total, least)
		if limit := 32768 + 3*each*imports + clusters*(3+imports); total > limit {
			t.Errorf("%d endpoints: %d copies, and not at most %d", 3*each*imports, total, limit)
		}
		if least < 3 || len(addresses) < 3*each*imports*9/10 {
			t.Errorf("%d endpoints: a cluster has %d, and all have %d", 3*each*imports, least, len(addresses))
		}
		if n, _, _ := f.copiesIn("other"); n != 2*3*each {
			t.Errorf("another namespace's cluster has %d endpoints", n)
		}
	}
	thinned := f.state.Divisors()
	if d := thinned["shop"]; len(thinned) != 1 || d.Own < 2 || d.Fallback < d.Own {
		t.Errorf("thinned: %v", thinned)
	}

	// One endpoint more or less changes no other cluster's part.
	before := maps.Clone(f.edges.versions("us"))
	grow(101)
	if after := f.state.Divisors(); after["shop"] != thinned["shop"] || len(before) == 0 {
		t.Errorf("one endpoint more thins otherwise: %v", after)
	}
	grow(4)
	if thinned := f.state.Divisors(); len(thinned) != 0 {
		t.Errorf("few endpoints are thinned: %v", thinned)
	}
}
