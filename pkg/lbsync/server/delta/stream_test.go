package delta

import (
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func resources(versions ...string) (list []Resource) {
	for _, v := range versions {
		name, version, _ := strings.Cut(v, "@")
		list = append(list, Resource{Name: name, Version: version, Body: &anypb.Any{}})
	}
	return list
}

// describe writes a response like "cluster a@1 -b".
func describe(r *discovery.DeltaDiscoveryResponse) string {
	if r == nil {
		return "nothing"
	}
	k, _ := KindOf(r.TypeUrl)
	text := k.String()
	for _, one := range r.Resources {
		text += " " + one.Name + "@" + one.Version
	}
	for _, name := range r.RemovedResources {
		text += " -" + name
	}
	return text
}

// edge is a Stream whose responses the test answers.
type edge struct {
	*Stream
	t *testing.T
}

func newEdge(t *testing.T, p *Pool, warmTimeout time.Duration) edge {
	e := edge{p.Open("envoy-0", warmTimeout), t}
	for _, k := range []Kind{clusters, listeners} {
		e.Receive(k, &discovery.DeltaDiscoveryRequest{})
	}
	return e
}

func (e edge) expect(now time.Time, want string) (*discovery.DeltaDiscoveryResponse, time.Duration) {
	e.t.Helper()
	r, wait := e.Next(now)
	if got := describe(r); got != want {
		e.t.Fatalf("next is %q, want %q\n%s", got, want, e.Describe())
	}
	return r, wait
}

func (e edge) ack(r *discovery.DeltaDiscoveryResponse) Received {
	k, _ := KindOf(r.TypeUrl)
	return e.Receive(k, &discovery.DeltaDiscoveryRequest{ResponseNonce: r.Nonce})
}

// Listeners wait for clusters that the edge does not ACK, exactly as long as the
// warm timeout, by the time that the caller passes.
func TestListenersWaitForClustersUntilTheTimeout(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1"), Listeners: resources("l@1")})
	e := newEdge(t, p, 5*time.Second)
	e.expect(noon, "cluster a@1")
	if _, wait := e.expect(noon, "nothing"); wait != 5*time.Second {
		t.Errorf("ask again after %s, want 5 s", wait)
	}
	if _, wait := e.expect(noon.Add(4*time.Second), "nothing"); wait != time.Second {
		t.Errorf("ask again after %s, want 1 s", wait)
	}
	e.expect(noon.Add(5*time.Second), "listener l@1")
}

// A cluster is removed after the listeners that used it were ACKed, and the
// snapshot counts as applied with that last ACK.
func TestClusterIsRemovedAfterItsUsers(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1"), Listeners: resources("l@1")})
	e := newEdge(t, p, time.Minute)
	for _, want := range []string{"cluster a@1", "listener l@1"} {
		r, _ := e.expect(noon, want)
		e.ack(r)
	}
	p.SetResources(Snapshot{Generation: 2, Clusters: resources("b@1"), Listeners: resources("l@2")})
	r, _ := e.expect(noon, "cluster b@1")
	e.expect(noon, "nothing")
	e.ack(r)
	r, _ = e.expect(noon, "listener l@2")
	e.expect(noon, "nothing")
	if received := e.ack(r); !received.Progress || e.Progress().Generation != 2 {
		t.Errorf("received %+v, progress %+v", received, e.Progress())
	}
	e.expect(noon, "cluster -a")
}

// A NACK is in the progress and in the description until the resource is ACKed or gone.
func TestNackIsDescribed(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1")})
	e := newEdge(t, p, time.Minute)
	r, _ := e.expect(noon, "cluster a@1")
	received := e.Receive(clusters, &discovery.DeltaDiscoveryRequest{ResponseNonce: r.Nonce, ErrorDetail: &rpcstatus.Status{Message: "no such type"}})
	if len(received.Nacked) != 1 || !strings.Contains(e.Describe(), "a 1: no such type") {
		t.Errorf("received %+v\n%s", received, e.Describe())
	}
	p.SetResources(Snapshot{Generation: 2, Clusters: resources("a@2")})
	if got := e.Progress().Nacks; len(got) != 1 || got[0].Version != "1" {
		t.Errorf("before the next answer: %v", got)
	}
	r, _ = e.expect(noon, "cluster a@2")
	if e.ack(r); strings.Contains(e.Describe(), "NACK") {
		t.Errorf("the edge took the next version:\n%s", e.Describe())
	}
	if got := p.Describe(); got != "snapshot 2: 1 cluster 0 assignment 0 secret 0 listener 0 route runtime unknown\n" {
		t.Errorf("got %q", got)
	}
}

// An edge that refused a resource gets another version of it, or one more
// resource. Its NACK stands until it takes what it gets instead, and nobody else
// gets that.
func TestOverrides(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	snapshot := Snapshot{Generation: 1, Listeners: resources("l@1"), Routes: resources("r@1")}
	p.SetResources(snapshot)
	strict, other := newEdge(t, p, time.Minute), newEdge(t, p, time.Minute)
	strict.ID, other.ID = 1, 2
	for _, e := range []edge{strict, other} {
		e.Receive(routes, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"r"}})
		for range 4 {
			if r, _ := e.Next(noon); r != nil {
				e.ack(r)
			}
		}
		if got := e.Progress(); got.Answered != 1 {
			t.Fatalf("progress %+v\n%s", got, e.Describe())
		}
	}
	snapshot.Generation, snapshot.Routes = 2, resources("r@2")
	p.SetResources(snapshot)
	r, _ := strict.expect(noon, "route r@2")
	strict.Receive(routes, &discovery.DeltaDiscoveryRequest{ResponseNonce: r.Nonce, ErrorDetail: &rpcstatus.Status{Message: "no"}})
	r, _ = other.expect(noon, "route r@2")
	other.ack(r)

	snapshot.Generation, snapshot.Overrides = 3, map[uint64]Override{1: {Routes: resources("r@1")}} // what it has
	p.SetResources(snapshot)
	strict.expect(noon, "nothing")
	if got := strict.Progress(); got.Answered != 3 || got.Generation != 3 || len(got.Nacks) != 1 || got.Nacks[0].Version != "2" {
		t.Errorf("with what it has: %+v", got)
	}
	snapshot.Generation, snapshot.Overrides = 4, map[uint64]Override{1: {Routes: resources("r@3"), Listeners: resources("m@1")}}
	p.SetResources(snapshot)
	other.expect(noon, "nothing")
	if got := strict.Progress(); got.Answered != 3 {
		t.Errorf("before it answers: %+v", got)
	}
	r, _ = strict.expect(noon, "listener m@1")
	strict.ack(r)
	r, _ = strict.expect(noon, "route r@3")
	strict.ack(r)
	if got := strict.Progress(); got.Answered != 4 || len(got.Nacks) != 0 {
		t.Errorf("with another version: %+v", got)
	}
	snapshot.Generation, snapshot.Overrides = 5, nil
	p.SetResources(snapshot)
	r, _ = strict.expect(noon, "listener -m")
	strict.ack(r)
	strict.expect(noon, "route r@2")
}

// An edge that reconnects is sent again what it NACKed, except secrets: a node is
// only the label that an edge gives itself, so the NACK may be another edge's.
func TestNacksOfAnEarlierStream(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Secrets: resources("s@2"), Listeners: resources("l@1"), Routes: resources("r@2")})
	hostile := newEdge(t, p, time.Minute)
	for _, k := range []Kind{secrets, routes} {
		hostile.Receive(k, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{k.String()[:1]}})
	}
	for range 8 {
		if r, _ := hostile.Next(noon); r != nil {
			k, _ := KindOf(r.TypeUrl)
			hostile.Receive(k, &discovery.DeltaDiscoveryRequest{ResponseNonce: r.Nonce, ErrorDetail: &rpcstatus.Status{Message: "no"}})
		}
	}
	if len(hostile.Progress().Nacks) != 3 {
		t.Fatalf("progress %+v", hostile.Progress())
	}
	p.Close(hostile.Stream)

	honest := edge{p.Open("envoy-0", time.Minute), t}
	for k, has := range map[Kind]string{clusters: "", listeners: "l", secrets: "s", routes: "r"} {
		first := &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{}}
		if has != "" {
			first.InitialResourceVersions[has] = "1"
		}
		if k == secrets || k == routes {
			first.ResourceNamesSubscribe = []string{has}
		}
		honest.Receive(k, first)
	}
	var sent []string
	for range 8 {
		if r, _ := honest.Next(noon); r != nil {
			sent = append(sent, describe(r))
			honest.ack(r)
		}
	}
	if got := strings.Join(sent, ", "); !strings.Contains(got, "route r@2") || strings.Contains(got, "secret s@2") {
		t.Errorf("sent %s", got)
	}
}

// An edge gets the runtime before there is anything else, and again when it changes. Whether it takes it says nothing of
// a snapshot.
func TestRuntimeComesFirst(t *testing.T) {
	p := NewPool()
	p.SetRuntime(resources("hub@1")[0])
	e := edge{p.Open("envoy-0", time.Minute), t}
	e.Receive(runtimes, &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"hub"}})
	r, _ := e.expect(noon, "runtime hub@1")
	e.ack(r)
	for _, k := range []Kind{clusters, listeners} {
		e.Receive(k, &discovery.DeltaDiscoveryRequest{})
	}
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1")})
	p.SetRuntime(resources("hub@2")[0])
	runtime, _ := e.expect(noon, "runtime hub@2")
	r, _ = e.expect(noon, "cluster a@1")
	e.ack(r)
	r, _ = e.expect(noon, "listener")
	e.ack(r)
	e.Receive(runtimes, &discovery.DeltaDiscoveryRequest{ResponseNonce: runtime.Nonce, ErrorDetail: &rpcstatus.Status{Message: "no"}})
	if got := e.Progress(); got.Generation != 1 || len(got.Nacks) > 0 {
		t.Errorf("%+v", got)
	}
	e.expect(noon, "nothing")
}

// A NACK names a snapshot that had what the edge has, even if the edge said so only after
// the next snapshot.
func TestNackNamesWhatTheEdgeHas(t *testing.T) {
	p := NewPool()
	p.UpdateLoadAssignments(nil, nil)
	p.SetResources(Snapshot{Generation: 1, Clusters: resources("a@1"), Listeners: resources("l@1")})
	e := newEdge(t, p, time.Second)
	r, _ := e.expect(noon, "cluster a@1")
	e.ack(r)
	first, _ := e.expect(noon, "listener l@1")
	p.SetResources(Snapshot{Generation: 2, Clusters: resources("a@1"), Listeners: resources("l@2")})
	second, _ := e.expect(noon, "listener l@2")
	e.ack(first)
	nack := &discovery.DeltaDiscoveryRequest{ResponseNonce: second.Nonce, ErrorDetail: &rpcstatus.Status{Message: "no"}}
	if n := e.Receive(listeners, nack).Nacked; len(n) != 1 || n[0].Applied != "1" || n[0].AppliedIn != 1 || e.Progress().Answered != 2 {
		t.Errorf("%+v, answered %d", n, e.Progress().Answered)
	}

	for has, want := range map[string]uint64{"1": 0, "2": 2} { // another stream: only of the present version it is known
		again := edge{p.Open("envoy-0", time.Second), t}
		again.Receive(listeners, &discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"l": has}})
		if got := again.kinds[listeners].entries["l"].appliedIn; got != want {
			t.Errorf("of an edge that comes with l@%s, snapshot %d is known, want %d", has, got, want)
		}
	}
}
