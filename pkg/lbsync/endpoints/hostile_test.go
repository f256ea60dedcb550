package endpoints

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/replica"
)

// spy has what replicas tell each other.
type spy map[string][]byte

func (h *hubs) spy() spy {
	s, link := spy{}, h.network.Link("spy")
	for _, topic := range []string{"load", "shares"} {
		link.Topic(topic).Subscribe(replica.Observer{
			Changed: func(from, key string, value []byte) { s[from+" "+topic+" "+key] = value },
			Deleted: func(from, key string) { delete(s, from+" "+topic+" "+key) },
		})
	}
	link.Start()
	return s
}

func (s spy) bytes() (all int) {
	for _, value := range s {
		all += len(value)
	}
	return all
}

// invented is a report about an assignment that there is, with localities that there are not.
func invented(size int) []Load {
	load, random := Load{Assignment: "a", Interval: time.Second}, rand.New(rand.NewPCG(1, 1))
	for i := 0; size > 0; i++ {
		name := make([]byte, 100) // which cannot be compressed to less than half
		for j := range name {
			name[j] = byte(random.Uint32())
		}
		l := LocalityLoad{SubZone: fmt.Sprintf("x%d/shop/%x", i, name), Issued: 1, Succeeded: 1, Open: 1}
		load.Localities = append(load.Localities, l)
		size -= len(l.SubZone)
	}
	return []Load{load}
}

// Who has the certificate of one pool can pose as all its edges. Whatever they report, other replicas are told of other
// pools' edges, and of the shares.
func TestReportsOfOnePoolLeaveRoomForOthers(t *testing.T) {
	honest := &simEdge{Edge: Edge{Pool: "eu", Region: "eu", Node: "eu-0", Source: "10.9.0.1"}, rate: 100}
	h := newHubs(t, []string{"a", "b"}, []*simEdge{honest})
	toA := func(*simEdge, []string) string { return "a" }
	said := h.spy()
	a := h.replicas["a"]
	h.run(time.Second, toA)
	for i := range 100 {
		edge := Edge{Pool: "us", Region: "us", Node: fmt.Sprint("fake-", i), Source: "10.9.0.2"}
		a.Connected(edge)
		a.ObserveLoad(edge, invented(300<<10))
	}
	h.run(10*time.Second, toA)
	key := "a load " + honest.Key()
	if value := string(said[key]); !strings.Contains(value, `"z":"eu-west/shop/web"`) {
		t.Errorf("other replicas hear of the honest edge: %.200q", value)
	}
	for _, key := range []string{"a shares candidate", "a shares " + backend("web").String()} {
		if said[key] == nil {
			t.Errorf("other replicas do not hear %q", key)
		}
	}
	if bytes := said.bytes(); bytes > maxReports/2+1<<20 || bytes < maxReports/4 {
		t.Errorf("replicas tell each other %d KB, of which one of two pools has most", bytes>>10)
	}
	for i := range 100 { // they are connected all the same
		if key := fmt.Sprintf("a load us/fake-%d@10.9.0.2", i); said[key] == nil {
			t.Errorf("other replicas do not hear that %q is connected", key)
			break
		}
	}
}

// An edge that reports ever new names leaves nothing of them behind.
func TestInventedNamesAreNotCounted(t *testing.T) {
	h := newHubs(t, []string{"a", "b"}, nil)
	said := h.spy()
	a, edge := h.replicas["a"], Edge{Pool: "us", Region: "us", Node: "us-0", Source: "10.9.0.1"}
	a.Connected(edge)
	for i := range 200 {
		var loads []Load
		for j := range 100 {
			loads = append(loads, Load{Assignment: fmt.Sprint("invented-", i, "-", j), Interval: time.Second})
		}
		a.ObserveLoad(edge, append(loads, Load{Assignment: "a", Interval: time.Second}))
	}
	if n := len(a.peers.edges.edges[edge.Key()].idle); n > 1 {
		t.Errorf("%d names are counted", n)
	}
	if value := string(said["a load "+edge.Key()]); strings.Contains(value, "invented") {
		t.Errorf("other replicas are told %.200q", value)
	}
	a.SetAssignments([]model.Assignment{assignmentOf("b", "web")}, nil)
	a.ObserveLoad(edge, []Load{{Assignment: "b", Interval: time.Second}})
	if value := string(said["a load "+edge.Key()]); !strings.Contains(value, `"a":"b"`) {
		t.Errorf("other replicas are told %.200q", value)
	}
}

// Requests that have not ended are those at members that there are.
func TestInventedMembersHaveNoOpenRequests(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.run()
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, nil)
	edge := Edge{Pool: "us", Region: "us", Node: "us-0", Source: "10.9.0.1"}
	f.Connected(edge)
	f.InitialVersions(edge, nil)
	loads := invented(100 << 10)
	loads[0].Localities = append(loads[0].Localities, LocalityLoad{SubZone: "us-west/shop/web", Issued: 2, Open: 2})
	f.ObserveLoad(edge, loads)
	f.run()
	if n := f.state.OpenAt(edge); n != 1 {
		t.Errorf("%d places are kept", n)
	}
	if open := f.state.OpenRequests(); len(open) != 1 || open[0].Cluster != fleet.ClusterName("us-west") || open[0].Count != 2 {
		t.Errorf("%v", open)
	}
}
