package hub

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"crossway.dev/crossway/api/v1alpha1"
)

// Silence is reported as soon as it has lasted 40 s, and takes nothing away.
func TestSilence(t *testing.T) {
	f := newFixture(t)
	f.member("s-west", true, "10.1.0.0/16")
	f.reconcile("s-west")
	f.renew("s-west")
	if wait := f.reconcile("s-west").RequeueAfter; wait != 30*time.Second {
		t.Errorf("reconciled again after %s", wait)
	}
	f.wantStatus("s-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease")
	f.clock = f.clock.Add(39 * time.Second)
	if wait := f.reconcile("s-west").RequeueAfter; wait != time.Second {
		t.Errorf("reconciled again after %s, want the moment when silence begins", wait)
	}
	f.clock = f.clock.Add(time.Second)
	f.reconcile("s-west")
	f.wantStatus("s-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=False Lease")
	f.mayWrite("s-west", true)
	f.renew("s-west")
	f.reconcile("s-west")
	f.wantStatus("s-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease")
}

// A Lease says when a member renewed it, by the member's own clock: what counts is
// when the hub saw it change.
func TestDatesInALease(t *testing.T) {
	f := newFixture(t)
	f.member("l-west", true, "10.1.0.0/16")
	f.reconcile("l-west")
	reachable := func(what, want string) {
		f.reconcile("l-west")
		if c := meta.FindStatusCondition(f.get("l-west").Status.Conditions, "Reachable"); string(c.Status) != want {
			t.Errorf("%s: Reachable=%s, want %s", what, c.Status, want)
		}
	}
	f.renewAt("l-west", f.clock.AddDate(70, 0, 0))
	reachable("a date in the future", "True")
	f.clock = f.clock.Add(v1alpha1.AgentLeaseDuration)
	reachable("and nothing after it", "False")
	for range 3 {
		f.clock = f.clock.Add(v1alpha1.AgentLeaseRenewInterval)
		f.renewAt("l-west", f.clock.Add(-time.Hour))
		reachable("a clock that is an hour late", "True")
	}
}
