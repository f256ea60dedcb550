package traffic

import (
	"slices"
	"testing"
	"time"

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
		{"a", 20, 0, 0, 20, true, false},  // held out, and reachable
		{"a", 0, 0, 0, 3, true, false},    // no connection
		{"a", 1, 0, 0, 0, true, false},    // a request got to an endpoint, whatever failed meanwhile
		{"a", 0, 0, 0, 9, true, false},    // just now
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
		{"a", 0, 0, 0, 0, true, false},
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

// A member is held out after two reports without a success, and readmitted with the first one.
func TestHeldOutMembers(t *testing.T) {
	var h Health
	type row struct {
		edge    string
		ok, bad uint64
		heldOut bool
	}
	for i, r := range []row{
		{"a", 0, 300, false}, // one report is not enough
		{"b", 9, 0, false},   // and b still reaches it
		{"a", 0, 300, false}, // so a's failures are counted from 0: a partition of one edge moves nothing
		{"b", 0, 0, false},   // b had no failures: a report without requests says nothing
		{"a", 0, 0, true},    // a sends nothing any more: it has ejected every endpoint
		{"a", 0, 5, true},
		{"b", 0, 5, true},
		{"a", 1, 4, false}, // one success: back at once
		{"a", 0, 4, false},
		{"a", 0, 1, false}, // two reports, but only 9 requests
		{"b", 0, 1, true},  // 10 together
		{"a", 7, 0, false},
		{"a", 0, 0, false}, // without failures a report without requests says nothing
		{"a", 0, 0, false},
		{"a", 90, 10, false}, // it dies within this report
		{"a", 0, 0, false},
		{"a", 0, 0, true}, // and a has ejected all of it since
		{"a", 9, 9, false},
		{"a", 0, 0, false},
		{"a", 0, 0, false}, // too few failures
		{"a", 50, 50, false},
		{"b", 1, 0, false}, // b still reaches it
		{"a", 0, 0, false},
		{"a", 0, 0, false},
		{"a", 0, 9, false},
		{"a", 0, 9, true},
	} {
		before := len(h.HeldOut()) > 0
		changed := h.Observe(MemberSample{Edge: r.edge, Cluster: "us-west", Reached: r.ok + r.bad, Succeeded: r.ok, Failed: r.bad})
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
