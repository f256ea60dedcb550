package hub

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
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

// Gossip says at once that a member died, by whose word and since when. Who else says so is written at most every 5 s, and
// what does not change the verdict is not written at all. The member keeps its access and its exports.
func TestGossipIsEvidence(t *testing.T) {
	f := newFixture(t)
	f.member("g-west", true, "10.1.0.0/16")
	f.reconcile("g-west")
	f.renew("g-west")
	var evidence registration.Evidence
	f.registrar.Evidence = func(fleet.ClusterName) registration.Evidence { return evidence }
	reachable := func() string {
		t.Helper()
		f.reconcile("g-west")
		c := meta.FindStatusCondition(f.get("g-west").Status.Conditions, "Reachable")
		return string(c.Status) + " " + c.Reason + " " + c.Message
	}
	wants := func(what string, wants ...string) {
		t.Helper()
		got := reachable()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
	}
	evidence.Gossip = registration.GossipWord{Heard: f.clock}
	wants("heard", "True Gossip")
	version := f.get("g-west").ResourceVersion
	for range 5 {
		f.clock = f.clock.Add(time.Second)
		evidence.Gossip.Heard = f.clock
		wants("heard again", "True Gossip")
	}
	if got := f.get("g-west").ResourceVersion; got != version {
		t.Error("a beat was written")
	}
	died := f.clock
	f.clock = f.clock.Add(5 * time.Second)
	evidence.Gossip = registration.GossipWord{Heard: died, Silent: true, Unreached: []string{"eu-west"}}
	wants("dead", "False Gossip", "not heard of since "+died.UTC().Format(time.RFC3339), "neither the hub nor eu-west reaches it")
	f.mayWrite("g-west", true)
	f.clock = f.clock.Add(time.Second)
	evidence.Gossip.Unreached = []string{"eu-west", "us-east"}
	wants("a third word, too soon to be written", "nor eu-west reaches it")
	f.clock = f.clock.Add(wordsInterval)
	wants("a third word", "nor eu-west and us-east reach it")
	f.clock = f.clock.Add(time.Second)
	evidence.Gossip = registration.GossipWord{Heard: f.clock}
	f.renew("g-west")
	wants("back", "True Gossip")
}

// Of a dead member a liar says that it reaches it, and that it does not, as fast as it can: that is written every 5 s. So is
// a member that says it stops, and goes on.
func TestWordsThatChangeWithoutEnd(t *testing.T) {
	f := newFixture(t)
	f.member("v-west", true, "10.1.0.0/16")
	f.reconcile("v-west")
	f.renew("v-west")
	var evidence registration.Evidence
	f.registrar.Evidence = func(fleet.ClusterName) registration.Evidence { return evidence }
	writes := func(words ...registration.GossipWord) (writes int) {
		t.Helper()
		last := f.get("v-west").ResourceVersion
		for i := range 40 { // twice a second
			f.clock = f.clock.Add(500 * time.Millisecond)
			evidence.Gossip = words[i%len(words)]
			f.reconcile("v-west")
			if now := f.get("v-west").ResourceVersion; now != last {
				last = now
				writes++
			}
		}
		return writes
	}
	if n := writes(registration.GossipWord{Heard: f.clock}, registration.GossipWord{Heard: f.clock, Left: true, Silent: true}); n > 6 {
		t.Errorf("a member that stops and goes on: %d writes in 20 s", n)
	}
	f.clock = f.clock.Add(time.Minute)
	dead := registration.GossipWord{Heard: f.clock.Add(-time.Minute), Silent: true}
	lost, unheard := dead, dead
	lost.Unreached, unheard.Reached = []string{"liar"}, []string{"liar"}
	if n := writes(dead, lost, unheard); n > 6 {
		t.Errorf("a liar about a dead member: %d writes in 20 s", n)
	}
}

// A replica that leads again, after another one did, does not take what it missed for a
// sign of life.
func TestSilenceBetweenTerms(t *testing.T) {
	f := newFixture(t)
	f.member("t-west", true, "10.1.0.0/16")
	f.reconcile("t-west")
	f.renew("t-west")
	f.reconcile("t-west")
	f.clock = f.clock.Add(v1alpha1.AgentLeaseRenewInterval)
	f.renew("t-west") // while the other one leads
	f.clock = f.clock.Add(time.Hour)
	f.reconcile("t-west")
	f.wantStatus("t-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=False Lease")
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

// A clock that is wrong is told as that, with what both clocks said, and takes nothing
// away. A hub that starts anew does not unsay it before it knows better.
func TestClockOfAMember(t *testing.T) {
	f := newFixture(t)
	f.member("w-west", true, "10.1.0.0/16")
	f.reconcile("w-west")
	beat := func(ahead time.Duration) string {
		f.clock = f.clock.Add(v1alpha1.AgentLeaseRenewInterval)
		f.renewAt("w-west", f.clock.Add(ahead))
		f.reconcile("w-west")
		if c := meta.FindStatusCondition(f.get("w-west").Status.Conditions, "ClockDiffers"); c != nil {
			return string(c.Status) + " " + c.Reason + " " + c.Message
		}
		return ""
	}
	f.renewAt("w-west", f.clock.Add(-time.Minute))
	f.reconcile("w-west")
	beat(-time.Minute)
	told := beat(-time.Minute)
	for _, want := range []string{"True Behind", "1m0s behind the hub's", "it said 2025-12-31T23:59:10Z", "the hub's said 2026-01-01T00:00:10Z"} {
		if !strings.Contains(told, want) {
			t.Errorf("a clock a minute behind: %q, want %q", told, want)
		}
	}
	if again := beat(-time.Minute - time.Second); again != told {
		t.Errorf("the condition changes with each renewal: %q", again)
	}
	f.wantStatus("w-west", "ClockDiffers=True Behind", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease")
	f.restart()
	f.reconcile("w-west")
	f.wantStatus("w-west", "ClockDiffers=True Behind", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease")
	beat(0)
	if told := beat(0); told != "" {
		t.Errorf("after the clock was set: %q", told)
	}
}

// While a second cluster announces itself under the credential of a member, its
// MemberCluster says so.
func TestCloneOfAMember(t *testing.T) {
	f := newFixture(t)
	f.member("c-west", true, "10.1.0.0/16")
	f.reconcile("c-west")
	const own, other = "0d1b9bbb-6f9c-4b7b-8f0b-0f6c1e3f7a11", "5ee3ab1c-41e2-4a5e-9a3f-1b6c2a8d9e22"
	m := f.get("c-west")
	m.Status.Credential.ClusterUID = own
	f.Must(f.client.Status().Update(t.Context(), m))
	announce := func(uid string) string {
		f.renew("c-west")
		lease := &coordinationv1.Lease{}
		f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: "member-c-west", Name: v1alpha1.AgentLease}, lease))
		lease.Annotations = map[string]string{v1alpha1.AnnotationClusterUID: "a text that nobody should believe"}
		if uid != "" {
			lease.Annotations[v1alpha1.AnnotationRefusedClusterUID] = registration.Refusal{ClusterUID: uid, Said: f.clock}.String()
		}
		f.Must(f.client.Update(t.Context(), lease))
		f.reconcile("c-west")
		if c := meta.FindStatusCondition(f.get("c-west").Status.Conditions, "IdentityConflict"); c != nil {
			return c.Message
		}
		return ""
	}
	if told := announce(""); told != "" {
		t.Errorf("one cluster alone: %q", told)
	}
	if told := announce(other); strings.Contains(told, "believe") || !strings.Contains(told, own) || !strings.Contains(told, other) || !strings.Contains(told, "crossway token create") {
		t.Errorf("a clone: %q", told)
	}
	if told := announce(own); !strings.Contains(told, "same UID") {
		t.Errorf("a copy with the same UID: %q", told)
	}
	f.wantStatus("c-west", "ExportsAccepted=True Accepted", "IdentityConflict=True AnotherCluster", "Joined=True Accepted", "Reachable=True Lease")
	f.clock = f.clock.Add(3 * v1alpha1.AgentRefusalInterval)
	f.renew("c-west")
	f.reconcile("c-west")
	f.wantStatus("c-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=True Lease")
}
