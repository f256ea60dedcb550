package traffic

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
)

// Errors are answers: a member is dead only where requests fail before they get to an endpoint, until any edge reaches it.
func TestDeadMembers(t *testing.T) {
	var h Health
	type row struct {
		edge                   string
		reached, open, ok, bad uint64
		heldOut, dead          bool
	}
	now := time.Unix(1_800_000_000, 0)
	for i, r := range []row{
		{"a", 1, 1, 0, 0, false, false}, // a slow answer is awaited, and no request has failed
		{"a", 0, 1, 0, 0, false, false},
		{"a", 20, 0, 0, 20, false, false}, // answers of 500
		{"a", 20, 0, 0, 20, false, false}, // however many
		{"a", 0, 0, 0, 3, false, false},   // no connection
		{"a", 1, 0, 0, 0, false, false},   // a request got to an endpoint, whatever failed meanwhile
		{"a", 0, 0, 0, 9, true, false},    // just now: held out, and perhaps reachable
		{"a", 0, 0, 0, 0, true, true},     // every endpoint is ejected
		{"a", 0, 0, 0, 0, true, true},
		{"b", 1, 0, 0, 1, true, false}, // b reaches it
		{"a", 0, 0, 0, 9, true, false}, // b's report counts
		{"b", 0, 0, 0, 1, true, true},
		{"c", 1, 0, 0, 0, true, false}, // an edge without failures
		{"a", 0, 0, 0, 1, true, false},
		{"b", 0, 0, 0, 0, true, false}, // failures before c reached it do not count
		{"a", 0, 0, 0, 3, true, true},
		{"a", 1, 1, 0, 1, true, false}, // a slow answer is awaited
		{"a", 0, 1, 0, 9, true, false},
		{"b", 0, 0, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, true}, // a stream, and no other request reaches it
		{"a", 1, 0, 0, 1, true, false},
		{"a", 1, 0, 1, 0, false, false},
		{"a", 90, 0, 80, 22, false, false}, // it dies within this second
		{"a", 0, 0, 0, 0, false, false},    // one report is not enough
		{"a", 0, 0, 0, 0, false, false},    // failures beside a success may be answers
		{"a", 0, 0, 0, 4, true, true},
		{"a", 1, 0, 1, 4, false, false}, // a single client, one of whose tries succeeded
		{"a", 0, 0, 0, 0, false, false},
		{"a", 0, 0, 0, 0, false, false}, // a report without requests says nothing
		{"a", 1, 0, 1, 0, false, false},
		{"a", 0, 0, 0, 3, false, false},
		{"a", 2, 0, 0, 2, false, false}, // other endpoints are reachable
		{"a", 0, 0, 0, 0, false, false},
		{"a", 0, 0, 0, 3, false, false}, // three failed connections since
		{"a", 1, 0, 1, 0, false, false},
		{"a", 0, 0, 0, 3, false, false}, // a single client
		{"a", 0, 0, 0, 1, true, true},
	} {
		now = now.Add(time.Second)
		heldOutBefore, deadBefore := len(h.HeldOut()), len(h.Dead())
		changed := h.Observe(MemberSample{Edge: r.edge, Cluster: "us-west", At: now, Reached: r.reached, Open: r.open, Succeeded: r.ok, Failed: r.bad})
		if heldOut, dead := len(h.HeldOut()) == 1, len(h.Dead()) == 1; heldOut != r.heldOut || dead != r.dead {
			t.Errorf("row %d: held out %v, dead %v", i, heldOut, dead)
		}
		if changed != (heldOutBefore != len(h.HeldOut()) || deadBefore != len(h.Dead())) {
			t.Errorf("row %d: changed %v", i, changed)
		}
	}
	if h.ForgetEdge("a"); len(h.Dead()) != 1 {
		t.Error("an edge that goes away revives a member")
	}
	if h.Readmit("us-west"); len(h.Dead()) != 0 {
		t.Error("a readmitted member is still dead")
	}
	h.HoldOut("us-west", true, now)
	if h.Observe(MemberSample{Edge: "b", Cluster: "us-west", At: now, Reached: 5}); len(h.Dead()) != 0 {
		t.Error("a member that was reached is still dead")
	}
}

// A held-out member that had no request for half a minute gets its share back: 1 % of few requests may be none. The delay
// doubles with each retry that fails.
func TestUntriedMembersAreRetried(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var h Health
	fail := func(after time.Duration, failed uint64) {
		now = now.Add(after)
		h.Observe(MemberSample{Edge: "a", Cluster: "us-west", At: now, Failed: failed})
	}
	expectRetried := func(after time.Duration, allDead bool, want ...fleet.ClusterName) {
		t.Helper()
		if got := h.RetryUntried(now.Add(after), allDead); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	h.HoldOut("eu-west", false, now)
	fail(time.Second, 4)
	fail(time.Second, 4)
	fail(20*time.Second, 1)
	expectRetried(7*time.Second, false)
	expectRetried(8*time.Second, true) // us-west had a request, which counts for eu-west, too
	expectRetried(8*time.Second, false, "eu-west")
	fail(20*time.Second, 0) // no request
	expectRetried(9*time.Second, false)
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		if h.heldOut["us-west"].retried {
			fail(0, 4)
			fail(time.Second, 4)
		}
		now = h.heldOut["us-west"].lastRequest
		if len(h.Dead()) != 1 {
			t.Error("it failed again and is not dead")
		}
		expectRetried(wait-time.Second, false)
		expectRetried(wait, false, "us-west")
		if len(h.HeldOut())+len(h.Dead()) > 0 {
			t.Error("it has its share back and is held out")
		}
		expectRetried(time.Hour, false)
	}
	h.Observe(MemberSample{Edge: "a", Cluster: "us-west", At: now, Reached: 1, Succeeded: 1})
	fail(0, 4)
	fail(time.Second, 4)
	expectRetried(30*time.Second, false, "us-west") // a success resets the delay
}

// Whatever clients make endpoints do, no member is held out: every request that fails has reached an endpoint.
func TestClientsHoldNobodyOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Health
		now := time.Unix(1_800_000_000, 0)
		for range rapid.IntRange(1, 30).Draw(t, "reports") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			failed := rapid.Uint64Range(0, 1000).Draw(t, "failed")
			h.Observe(MemberSample{Edge: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "edge"), Cluster: "us-west", At: now, Failed: failed,
				Reached: failed + rapid.Uint64Range(0, 9).Draw(t, "slow"), Open: rapid.Uint64Range(0, 9).Draw(t, "open")})
			if len(h.HeldOut()) > 0 {
				t.Fatal("held out")
			}
		}
	})
}

// A member is held out after two reports without a success and with four failed connections, and readmitted with the first
// success. Clients can make endpoints answer errors and close connections, and cannot hold a member out.
func TestHeldOutMembers(t *testing.T) {
	var h Health
	type row struct {
		edge                      string
		ok, answered, unconnected uint64 // succeeded, and failed with and without a connection
		heldOut                   bool
	}
	for i, r := range []row{
		{"a", 0, 300, 0, false}, // answers of 500, or connections closed
		{"a", 0, 300, 0, false},
		{"a", 0, 300, 3, false}, // and endpoints that crashed
		{"a", 0, 300, 300, false},
		{"b", 9, 0, 0, false},   // b succeeds
		{"a", 0, 0, 300, false}, // one report is not enough, and a's failures are counted from 0: a partition of one edge moves nothing
		{"b", 0, 0, 0, false},   // b had no failures: a report without requests says nothing
		{"a", 0, 0, 0, true},    // a sends nothing any more: it has ejected every endpoint
		{"a", 0, 0, 5, true},
		{"b", 0, 0, 5, true},
		{"a", 1, 0, 4, false}, // one success: back at once
		{"a", 0, 0, 2, false},
		{"a", 0, 0, 1, false}, // two reports, but only 3 connections
		{"b", 0, 0, 1, true},  // 4 together
		{"a", 7, 0, 0, false},
		{"a", 0, 0, 0, false}, // without failures a report without requests says nothing
		{"a", 0, 0, 0, false},
		{"a", 90, 0, 10, false}, // it dies within this report, or answered ten errors
		{"a", 0, 0, 0, false},
		{"a", 0, 0, 4, true},
		{"a", 50, 0, 50, false},
		{"b", 1, 0, 0, false}, // b still reaches it
		{"a", 0, 0, 0, false},
		{"a", 0, 0, 3, false},
		{"a", 0, 0, 1, true},
	} {
		before := len(h.HeldOut()) > 0
		changed := h.Observe(MemberSample{Edge: r.edge, Cluster: "us-west", Reached: r.ok + r.answered, Succeeded: r.ok, Failed: r.answered + r.unconnected})
		if heldOut := len(h.HeldOut()) > 0; heldOut != r.heldOut || changed != (heldOut != before) {
			t.Errorf("row %d: held out %v, changed %v", i, heldOut, changed)
		}
	}
	if !h.Readmit("us-west") || len(h.HeldOut()) > 0 {
		t.Error("a readmitted member is still held out")
	}
	h.HoldOut("eu-west", false, time.Time{})
	if got := h.HeldOut(); len(got) != 1 || !h.Observe(MemberSample{Edge: "a", Cluster: "eu-west", Succeeded: 1}) {
		t.Errorf("learned: %v", got)
	}
}
