package endpoints

import (
	"strings"
	"testing"

	"k8s.io/client-go/tools/events"
)

// A cluster that is held out, and one that no longer is, get an Event each from the leader, and none from other replicas.
func TestEventsOnHeldOutClusters(t *testing.T) {
	f, _, fail := failing(t)
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
	readmit := func(lastAddress string) {
		f.slice(memberSlice("us-west", "web", "10.1.1.1", lastAddress))
		f.run()
	}
	fail()
	fail()
	readmit("10.1.1.3")
	if got := next(); got != "" {
		t.Errorf("a replica that does not lead emitted %q", got)
	}
	leads = true
	fail()
	fail()
	if got := next(); !strings.HasPrefix(got, `Warning TrafficHeldOut requests from region "us" fail for 1 import(s); all but 1 %`) {
		t.Errorf("held out: %q", got)
	}
	readmit("10.1.1.4")
	if got := next(); got != `Normal TrafficRestored requests from region "us" for 1 import(s) are sent to this cluster again` {
		t.Errorf("readmitted: %q", got)
	}
}
