package endpoints

import (
	"fmt"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// A member whose slices all change, again and again, delays the change of another member by a part of them, and each of its
// own slices has its turn.
func TestOneMemberDelaysNobody(t *testing.T) {
	f := newFixture(t)
	const services = 5 * slicesPerTurn
	assignments := []model.Assignment{assignmentOf("other", "other")}
	for i := range services {
		service := fmt.Sprintf("s%03d", i)
		assignments = append(assignments, assignmentOf(service, service))
	}
	f.SetAssignments(assignments, nil)
	f.run()
	f.edges.takeChanged()
	passed := map[string]int{}
	for round := range 5 {
		for i := range services {
			f.slice(memberSlice("us-west", fmt.Sprintf("s%03d", i), fmt.Sprintf("10.1.%d.%d", i, round)))
		}
		f.slice(memberSlice("us-east", "other", fmt.Sprint("10.2.0.", round)))
		f.run()
		us := 0
		for name := range f.edges.taken("us") {
			passed[name]++
			us++
		}
		if us != slicesPerTurn+1 || passed["other"] != round+1 {
			t.Errorf("round %d: a pass published %d load assignments, and the other member's %d times", round, us, passed["other"])
		}
	}
	if len(passed) != services+1 {
		t.Errorf("in 5 passes %d of %d load assignments had their turn", len(passed)-1, services)
	}
	for range 5 {
		f.run()
	}
	if left := f.inbox.Drain(); !left.Empty() {
		t.Errorf("%d slices are left after all turns", len(left.Slices))
	}
}

// Edges that connect and Gateways that change take no more of one member's changes than its turn.
func TestTurnsHoldForAllWhoTakeChanges(t *testing.T) {
	for what, take := range map[string]func(f *fixture){
		"an edge that connects":    func(f *fixture) { f.Connected(Edge{Pool: "us", Region: "us", Node: "a"}) },
		"an edge that disconnects": func(f *fixture) { f.Disconnected(Edge{Pool: "us", Region: "us", Node: "a"}) },
		"new assignments":          func(f *fixture) { f.SetAssignments([]model.Assignment{assignmentOf("web", "web")}, nil) },
	} {
		f := newFixture(t)
		f.run()
		for i := range 3 * slicesPerTurn {
			f.slice(memberSlice("us-west", fmt.Sprintf("s%03d", i), "10.1.0.1"))
		}
		take(f)
		if left := len(f.inbox.Drain().Slices); left != 2*slicesPerTurn {
			t.Errorf("%s leaves %d slices of %d", what, left, 3*slicesPerTurn)
		}
	}
}

// What changes again while it waits for its turn is taken as it is then, and what goes is gone.
func TestWaitingSlicesAreNewest(t *testing.T) {
	in, of := newInbox(), turns{}
	for i := range 2 * slicesPerTurn {
		in.sliceHandler().OnAdd(memberSlice("us-west", fmt.Sprintf("s%03d", i), "10.1.0.1"), false)
	}
	in.takeTurn(of)
	last := memberSlice("us-west", fmt.Sprintf("s%03d", 2*slicesPerTurn-1), "10.1.0.2")
	in.sliceHandler().OnDelete(last)
	second := in.takeTurn(of)
	if s, taken := second.Slices[state.SliceKey("member-us-west/"+last.Name)]; !taken || s != nil || len(second.Slices) != slicesPerTurn {
		t.Errorf("%d slices, the one that is gone: %v, %v", len(second.Slices), taken, s)
	}
}
