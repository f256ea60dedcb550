package endpoints

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/events"
)

// A cluster that is held out, and one that no longer is, get an Event each from the leader, and none from other replicas.
func TestEventsOnHeldOutClusters(t *testing.T) {
	f, edge, fail := failing(t)
	recorder, leads := events.NewFakeRecorder(10), false
	f.config.Events, f.config.Leads = recorder, func() bool { return leads }
	next := func() string {
		select {
		case event := <-recorder.Events:
			return event
		default:
			return ""
		}
	}
	readmit := func() {
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 1})
		f.run()
	}
	fail()
	fail()
	readmit()
	if got := next(); got != "" {
		t.Errorf("a replica that does not lead emitted %q", got)
	}
	leads = true
	fail()
	fail()
	if got := next(); !strings.HasPrefix(got, `Warning TrafficUnreachable connections from region "us" fail for 1 import(s); all but 1 %`) {
		t.Errorf("held out: %q", got)
	}
	readmit()
	if got := next(); got != `Normal TrafficRestored requests from region "us" for 1 import(s) are sent to this cluster again` {
		t.Errorf("readmitted: %q", got)
	}
}

// An edge whose reports hold a member out and take it back without end fills neither the log nor the API server, and what
// is said last is true.
func TestAnnouncementsAreLimited(t *testing.T) {
	f, edge, fail := failing(t)
	recorder := events.NewFakeRecorder(1000)
	f.config.Events = recorder
	for range 200 {
		fail()
		fail()
		f.clock.Step(time.Second)
		f.report(edge, "a", "web", map[string]uint64{"us-west": 1})
		f.run()
	}
	f.clock.Step(announceInterval)
	f.run()
	n, last := len(recorder.Events), ""
	for range n {
		last = <-recorder.Events
	}
	if n > 150 || !strings.Contains(last, "TrafficRestored") { // in 600 s
		t.Errorf("%d Events, the last is %q", n, last)
	}
	f.clock.Step(announceBurst * announceInterval)
	f.run()
	if n := len(f.announcements); n > 0 {
		t.Errorf("%d announcements are kept though nothing waits", n)
	}
}

// A member that is held out of an import is restored when no route uses the import any more.
func TestHoldingOutEndsWithTheImport(t *testing.T) {
	f, _, fail := failing(t)
	recorder := events.NewFakeRecorder(10)
	f.config.Events = recorder
	fail()
	fail()
	f.SetAssignments(nil, nil)
	f.run()
	var got []string
	for range len(recorder.Events) {
		got = append(got, strings.Fields(<-recorder.Events)[1])
	}
	if want := []string{"TrafficUnreachable", "TrafficRestored"}; !slices.Equal(got, want) {
		t.Errorf("Events %q, want %q", got, want)
	}
}

// Load reports that wait for a pass are bounded by what they have.
func TestPendingReportsAreBounded(t *testing.T) {
	f := newFixture(t)
	loads := make([]Load, 100_000)
	for range 100 {
		f.ObserveLoad(Edge{Pool: "us", Region: "us", Node: "one"}, loads)
	}
	if n := len(f.inbox.Drain().Loads); n == 0 || n*len(loads) > maxPendingLoads {
		t.Errorf("%d reports of %d assignments wait", n, len(loads))
	}
}
