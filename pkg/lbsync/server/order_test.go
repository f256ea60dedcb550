package server_test

import (
	"slices"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// running is an edge that has all of this and asked for it as an Envoy does.
func running(h *hub, lines ...string) *edge {
	h.t.Helper()
	s := snapshot(1, lines...)
	h.SetResources(pool, s)
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, nil)
	e.asks(resourcev3.ListenerType, nil)
	ask := func(typeURL string, resources []server.Resource) {
		var names []string
		for _, r := range resources {
			names = append(names, r.Name)
		}
		e.asks(typeURL, nil, names...)
	}
	ask(resourcev3.EndpointType, s.Clusters)
	ask(resourcev3.SecretType, s.Secrets)
	ask(resourcev3.RouteType, s.Routes)
	e.takesAll() // what waited for the clusters' ACK comes with it
	e.takesAll()
	e.takesAll()
	if got := h.generation("envoy-0"); got != 1 {
		h.t.Fatalf("the edge applied generation %d, want 1", got)
	}
	return e
}

func TestFreshEdge(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1"), nil)
	h.SetResources(pool, snapshot(1, "Cluster a@1 b@1", "Listener l@1", "Route r@1 q@1", "Secret s@1"))
	e := h.connect("envoy-0")

	// Clusters come together, then what the edge asks for by name, one by one.
	e.asks(resourcev3.ClusterType, nil)
	all := e.gets("Cluster a@1 b@1")
	e.asks(resourcev3.EndpointType, nil, "a", "b")
	e.takes("ClusterLoadAssignment a@1")
	e.takes("ClusterLoadAssignment b@1")

	// Listeners wait until the edge says that its clusters are warm.
	e.asks(resourcev3.ListenerType, nil)
	e.getsNothing()
	e.ack(all)
	e.takes("Listener l@1")
	e.subscribes(resourcev3.SecretType, "s")
	e.takes("Secret s@1")
	e.asks(resourcev3.RouteType, nil, "r", "q")
	e.takes("RouteConfiguration q@1")
	if got := h.generation("envoy-0"); got != 0 {
		t.Errorf("generation %d applied before the last ACK", got)
	}
	e.takes("RouteConfiguration r@1")
	h.waitFor("envoy-0 acked RouteConfiguration r 1")
	if got := h.generation("envoy-0"); got != 1 {
		t.Errorf("generation %d applied after the last ACK, want 1", got)
	}
}

// Before the first snapshot of a pool there is no response: an empty one would
// take everything from an edge that works.
func TestNothingBeforeTheFirstSnapshot(t *testing.T) {
	h := newHub(t, server.Config{})
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, versions{"a": "1", "new": "1"})
	e.asks(resourcev3.EndpointType, versions{"a": "1"}, "a", "new")
	e.asks(resourcev3.ListenerType, versions{"l": "1"})
	e.asks(resourcev3.RouteType, versions{"r": "1"}, "r")
	e.asks(resourcev3.SecretType, nil, "s")
	h.waitFor("envoy-0 has Secret map[]")

	h.SetResources(pool, snapshot(1, "Cluster a@1 new@1", "Listener l@1", "Route r@1"))
	for _, want := range []string{"Cluster", "Listener", "Secret -s"} {
		if r := e.gets(want); r.SystemVersionInfo != "1" {
			t.Errorf("%s was answered before the snapshot", want)
		}
	}
	// Assignments have their own beginning.
	e.getsNothing()
	h.UpdateLoadAssignments(pool, list("a@2 new@1"), nil)
	got := []string{describe(e.receives()), describe(e.receives())}
	slices.Sort(got)
	if want := []string{"ClusterLoadAssignment a@2", "ClusterLoadAssignment new@1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An edge that comes back with all it should have is left alone, but for the
// empty answers that Envoy waits for.
func TestReconnect(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1"), nil)
	h.SetResources(pool, snapshot(4, "Cluster a@1 b@1", "Listener l@1", "Route r@1", "Secret s@1"))
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, versions{"a": "1", "b": "1"})
	e.takes("Cluster")
	e.asks(resourcev3.ListenerType, versions{"l": "1"})
	e.takes("Listener")
	e.asks(resourcev3.EndpointType, versions{"a": "1", "b": "1"}, "a", "b")
	e.asks(resourcev3.RouteType, versions{"r": "1"}, "r")
	e.asks(resourcev3.SecretType, versions{"s": "1"}, "s")
	e.getsNothing()
	h.waitFor("envoy-0 has ClusterLoadAssignment map[a:1 b:1]")
	if got := h.generation("envoy-0"); got != 4 {
		t.Errorf("applied generation %d without any push, want 4", got)
	}
}

// What changed while the edge was away comes in the usual order.
func TestReconnectAfterChanges(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@2 new@1"), nil)
	h.SetResources(pool, snapshot(4, "Cluster a@1 b@1 new@1", "Listener l@1", "Route r@2"))
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, versions{"a": "1", "b": "1", "old": "1"})
	cds := e.gets("Cluster new@1")
	e.getsNothing() // old stays: the edge has not sent its routes yet
	e.asks(resourcev3.EndpointType, versions{"a": "1", "b": "1", "old": "1"}, "a", "b", "old")
	e.asks(resourcev3.ListenerType, versions{"l": "1", "gone": "1"})
	e.asks(resourcev3.RouteType, versions{"r": "1"}, "r")
	e.takes("ClusterLoadAssignment b@2")
	e.subscribes(resourcev3.EndpointType, "new")
	e.takes("ClusterLoadAssignment new@1")
	e.getsNothing()
	e.ack(cds)
	e.takes("Listener -gone")
	e.takes("RouteConfiguration r@2")
	e.takes("Cluster -old")
}

// Envoy keeps a changed cluster cold until its assignment comes again, and does
// not ask for it.
func TestChangedClusterIsWarmed(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1"), nil)
	e := running(h, "Cluster a@1 b@1")
	h.SetResources(pool, snapshot(2, "Cluster a@2 b@1"))
	e.takes("Cluster a@2")
	e.takes("ClusterLoadAssignment a@1")
	e.getsNothing()
	// So for a second cluster of an assignment that is asked for already.
	h.SetResources(pool, snapshot(3, "Cluster a@2 b@1 twin@1/b"))
	e.takes("Cluster twin@1")
	e.takes("ClusterLoadAssignment b@1")
	e.getsNothing()
}

func TestMakeBeforeBreak(t *testing.T) {
	h := newHub(t, server.Config{WarmTimeout: time.Hour})
	h.UpdateLoadAssignments(pool, list("blue@1 green@1"), nil)
	e := running(h, "Cluster blue@1", "Listener l@1 m@1", "Route r@1")

	h.SetResources(pool, snapshot(2, "Cluster green@1", "Listener l@2", "Route r@2"))
	cds := e.gets("Cluster green@1")
	e.subscribes(resourcev3.EndpointType, "green")
	e.takes("ClusterLoadAssignment green@1")
	e.getsNothing() // routes would lead to a cluster that is not warm
	e.ack(cds)
	lds := e.gets("Listener l@2 -m")
	rds := e.gets("RouteConfiguration r@2")
	e.getsNothing() // the old cluster is in use until all of them are ACKed
	e.ack(lds)
	e.getsNothing()
	if got := h.generation("envoy-0"); got != 1 {
		t.Errorf("applied %d with a route not ACKed, want 1", got)
	}
	e.ack(rds)
	e.takes("Cluster -blue")
	if got := h.generation("envoy-0"); got != 2 {
		t.Errorf("applied %d, want 2", got)
	}
}

// A cluster that never gets warm delays routes once, and at most for the timeout.
func TestColdClusterDelaysOnce(t *testing.T) {
	const timeout = time.Second
	h := newHub(t, server.Config{WarmTimeout: timeout})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Cluster a@1", "Route r@1")
	begin := time.Now()
	h.SetResources(pool, snapshot(2, "Cluster a@1 cold@1", "Route r@2"))
	e.gets("Cluster cold@1")
	e.takes("RouteConfiguration r@2")
	if took := time.Since(begin); took < timeout {
		t.Errorf("the route left after %s, before the timeout", took)
	}
	begin = time.Now()
	h.SetResources(pool, snapshot(3, "Cluster a@1 cold@1", "Route r@3"))
	e.takes("RouteConfiguration r@3")
	if took := time.Since(begin); took >= timeout {
		t.Errorf("the next route waited %s for the same cluster", took)
	}
}

// A refused route stays on the edge in its old form, with the cluster it uses.
func TestRefusedRouteKeepsItsCluster(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("old@1"), nil)
	e := running(h, "Cluster old@1", "Route r@1")
	h.SetResources(pool, snapshot(2, "Route r@2"))
	e.nack(e.gets("RouteConfiguration r@2"), "bad regex")
	e.getsNothing()
	h.SetResources(pool, snapshot(3, "Route r@3"))
	e.takes("RouteConfiguration r@3")
	e.takes("Cluster -old")
}

// A change is sent though the one before was not ACKed; of several changes to
// one resource only the newest matters.
func TestNoWaitingForAcks(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1"), nil)
	e := running(h, "Cluster a@1 b@1")
	for _, change := range []string{"a@2", "b@2", "a@3"} {
		h.UpdateLoadAssignments(pool, list(change), nil)
		e.gets("ClusterLoadAssignment " + change)
	}
	h.SetResources(pool, snapshot(2, "Cluster a@2 b@1"))
	e.gets("Cluster a@2")
	e.gets("ClusterLoadAssignment a@3")
	h.SetResources(pool, snapshot(3, "Cluster a@2 b@1 c@1"))
	e.gets("Cluster c@1")
}

func TestOneResourcePerResponse(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1 c@1"), nil)
	e := running(h, "Cluster a@1 b@1 c@1", "Listener l@1", "Route r@1 q@1", "Secret s@1 t@1")
	h.UpdateLoadAssignments(pool, list("a@2 b@2 c@2"), nil)
	h.SetResources(pool, snapshot(2, "Cluster a@1 b@1 c@1", "Listener l@1", "Route r@2 q@2", "Secret s@2 t@2"))
	got := e.takesAll()
	slices.Sort(got)
	want := []string{
		"ClusterLoadAssignment a@2", "ClusterLoadAssignment b@2", "ClusterLoadAssignment c@2",
		"RouteConfiguration q@2", "RouteConfiguration r@2",
		"Secret s@2", "Secret t@2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Envoy ignores removed_resources for assignments. One that is taken back ends
// with its cluster, or is emptied when a snapshot still uses it.
func TestReleasedAssignments(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("a@1 b@1"), nil)
	e := running(h, "Cluster a@1 b@1", "Route r@1")
	h.UpdateLoadAssignments(pool, nil, []string{"a", "b"})
	e.getsNothing() // the routes still lead there
	h.SetResources(pool, snapshot(2, "Cluster b@1", "Route r@1"))
	e.takes("ClusterLoadAssignment b@empty")
	e.takes("Cluster -a")
	e.unsubscribes(resourcev3.EndpointType, "a")
	h.UpdateLoadAssignments(pool, list("b@2"), nil)
	e.takes("ClusterLoadAssignment b@2")
	e.getsNothing()
}

// All pools of a region have all its load assignments. An edge gets those that
// clusters of its own pool use, whatever it asks for or has.
func TestAssignmentsOfOtherPlaces(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, list("own@1 foreign@1"), nil)
	e := running(h, "Cluster own@1", "Route r@1")
	e.subscribes(resourcev3.EndpointType, "foreign", "own")
	e.takes("ClusterLoadAssignment own@1")
	h.UpdateLoadAssignments(pool, list("foreign@2"), nil)
	e.getsNothing()
	other := h.connect("envoy-1")
	other.asks(resourcev3.EndpointType, versions{"foreign": "0"}, "foreign")
	other.getsNothing()
	// Once a cluster uses it, it is the edge's own; and no longer, when none does.
	h.SetResources(pool, snapshot(2, "Cluster own@1 foreign@1", "Route r@1"))
	if got := e.takesAll(); !slices.Contains(got, "ClusterLoadAssignment foreign@2") {
		t.Errorf("got %q, not the assignment of a new cluster", got)
	}
	h.SetResources(pool, snapshot(3, "Cluster own@1", "Route r@1"))
	e.takesAll()
	h.UpdateLoadAssignments(pool, list("foreign@3"), nil)
	e.getsNothing()
}

func TestAbsentNames(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1))
	e := h.connect("envoy-0")
	e.asks(resourcev3.RouteType, nil, "later")
	e.takes("RouteConfiguration -later")
	e.asks(resourcev3.EndpointType, nil, "later")
	e.getsNothing() // removed_resources would be no answer
	h.SetResources(pool, snapshot(2, "Route later@1"))
	e.takes("RouteConfiguration later@1")
	h.UpdateLoadAssignments(pool, list("later@1"), nil)
	e.getsNothing() // no cluster of this pool uses it
	h.SetResources(pool, snapshot(3, "Cluster later@1", "Route later@1"))
	e.takes("ClusterLoadAssignment later@1")
	// What is no longer asked for is no longer sent.
	e.unsubscribes(resourcev3.RouteType, "later")
	e.unsubscribes(resourcev3.EndpointType, "later")
	e.getsNothing()
	h.SetResources(pool, snapshot(4, "Cluster later@1", "Route later@2"))
	h.UpdateLoadAssignments(pool, list("later@2"), nil)
	e.getsNothing()
	// What is asked for again is sent again, changed or not.
	e.subscribes(resourcev3.EndpointType, "later")
	e.takes("ClusterLoadAssignment later@2")
	e.subscribes(resourcev3.EndpointType, "later")
	e.takes("ClusterLoadAssignment later@2")
}
