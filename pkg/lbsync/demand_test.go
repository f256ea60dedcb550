package lbsync

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
)

var epoch = time.Unix(1_800_000_000, 0)

// clock is an open-loop client and the edges that count it: request k goes to edge k modulo edges, and edge e reports
// once a second at e/edges of it.
type clock struct {
	now    time.Duration
	edges  int
	sent   float64  // requests since the start, with the fraction of the next
	counts []uint64 // since each edge's last report
	rate   func(time.Duration) float64
	health func(time.Duration) (up bool)
	after  func(now time.Duration) // called after each report
	next   int
}

const tick = time.Millisecond

// run feeds the estimate until the given time.
func (c *clock) run(d *Demand, until time.Duration) {
	if c.counts == nil {
		c.counts = make([]uint64, c.edges)
	}
	for ; c.now < until; c.now += tick {
		before := math.Floor(c.sent)
		c.sent += c.rate(c.now) * tick.Seconds()
		for range int(math.Floor(c.sent) - before) {
			c.counts[c.next%c.edges]++
			c.next++
		}
		for e := range c.edges {
			if (c.now-time.Duration(e)*time.Second/time.Duration(c.edges))%time.Second != 0 || c.now < time.Second {
				continue
			}
			s := Sample{Edge: fmt.Sprint(e), End: epoch.Add(c.now), Interval: time.Second, Issued: c.counts[e], Succeeded: c.counts[e]}
			if c.health != nil && !c.health(c.now) {
				s.Succeeded, s.Issued, s.Failed = 0, 0, min(c.counts[e], 3) // the rest finds every host ejected
			}
			c.counts[e] = 0
			d.Observe(s)
			if c.after != nil {
				c.after(c.now)
			}
		}
	}
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

func step(from, to float64, at time.Duration) func(time.Duration) float64 {
	return func(now time.Duration) float64 {
		if now < at {
			return from
		}
		return to
	}
}

func near(got, want, part float64) bool { return math.Abs(got-want) <= part*want }

// overflowing splits 2 pods of 10 in us and in eu; all demand comes from us.
func overflowing(rate float64) Move {
	in := SplitInput{Rate: 10, Members: []Capacity{{"us-west", "us", 2, 1}, {"eu-west", "eu", 2, 1}},
		Regions: []RegionDemand{{Region: "us", Demand: rate}}}
	return Move{New: Split(in), Members: in.Members, Demand: map[string]float64{"us": rate}}
}

// A constant demand moves no share, whoever counts it and when, once the window is full.
func TestConstantDemandMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &clock{edges: rapid.IntRange(1, 3).Draw(t, "edges"), rate: constant(rapid.Float64Range(25, 400).Draw(t, "rate")),
			sent: rapid.Float64Range(0, 1).Draw(t, "phase")}
		var d Demand
		c.run(&d, 9*time.Second)
		inForce := overflowing(d.Rate())
		c.after = func(now time.Duration) {
			m := overflowing(d.Rate())
			m.Old = inForce.New
			if m.Worth() {
				t.Fatalf("%v: estimate %v moves %v to %v", now, d.Rate(), m.Old, m.New)
			}
		}
		c.run(&d, 60*time.Second)
	})
}

// 10 to 30 requests per second: mostly there with the first report that saw the step, fully with the first that saw
// nothing else.
func TestARiseCountsAtOnce(t *testing.T) {
	for _, edges := range []int{1, 2} {
		for at := 10 * time.Second; at < 11*time.Second; at += 50 * time.Millisecond {
			var d Demand
			c := &clock{edges: edges, rate: step(10, 30, at)}
			c.run(&d, at+tick)
			if !near(d.Rate(), 10, 0.05) {
				t.Fatalf("before the step: %v", d.Rate())
			}
			c.run(&d, at+time.Second+tick)
			late := (at.Truncate(time.Second) + time.Second - at).Seconds() // of a report after the step, for one edge
			if edges == 1 && late > 0.5 && d.Rate() < 20 {
				t.Errorf("step at %v: first report gives %v", at, d.Rate())
			}
			c.run(&d, at+2*time.Second+tick)
			if !near(d.Rate(), 30, 0.05) {
				t.Errorf("%d edges, step at %v: %v after two reports", edges, at, d.Rate())
			}
		}
	}
}

// Down to the truth within three windows of three seconds, and not at once.
func TestAFallTakesItsTime(t *testing.T) {
	var d Demand
	c := &clock{edges: 2, rate: step(30, 10, 10500*time.Millisecond)}
	c.run(&d, 11600*time.Millisecond)
	if d.Rate() < 20 {
		t.Errorf("one low report already gives %v", d.Rate())
	}
	c.run(&d, 19500*time.Millisecond)
	if !near(d.Rate(), 10, 0.05) {
		t.Errorf("after 9 s: %v", d.Rate())
	}
}

// When everything is down, Envoy counts a few failures and then nothing; clients are still there. The estimate is kept,
// and after the return nothing low is averaged in.
func TestDemandIsKeptWhenEverythingIsDown(t *testing.T) {
	var d Demand
	down := func(now time.Duration) bool { return now < 10*time.Second || now > 40*time.Second }
	c := &clock{edges: 2, rate: constant(30), health: down}
	c.after = func(now time.Duration) {
		if now > 8*time.Second && !near(d.Rate(), 30, 0.06) {
			t.Fatalf("%v: %v", now, d.Rate())
		}
	}
	c.run(&d, 60*time.Second)
}

// After failures the clients may really have left: a minute without any trace is believed.
func TestSilenceIsBelievedInTheEnd(t *testing.T) {
	var d Demand
	c := &clock{edges: 1, rate: step(30, 0, 20*time.Second), health: func(now time.Duration) bool { return now < 10*time.Second }}
	c.run(&d, 75*time.Second)
	if !near(d.Rate(), 30, 0.06) {
		t.Errorf("given up early: %v", d.Rate())
	}
	c.run(&d, 95*time.Second)
	if d.Rate() != 0 {
		t.Errorf("never given up: %v", d.Rate())
	}
}

// An import without endpoints anywhere leaves no trace in reports, and its demand is kept too.
func TestUnservedDemandIsKept(t *testing.T) {
	var d Demand
	(&clock{edges: 1, rate: constant(30)}).run(&d, 10*time.Second)
	for k := range 20 {
		d.Observe(Sample{Edge: "0", End: epoch.Add(time.Duration(10+k) * time.Second), Interval: time.Second, Unserved: true})
	}
	if !near(d.Rate(), 30, 0.05) {
		t.Errorf("%v", d.Rate())
	}
}

// One edge is replaced by another: its clients are the same, and the estimate neither falls nor doubles for long,
// also when nobody says that the old one is gone.
func TestAnEdgeIsReplaced(t *testing.T) {
	for _, told := range []bool{true, false} {
		var d Demand
		for k := 1; k < 40; k++ {
			edge := "old"
			if k > 20 {
				edge = "new"
			}
			if k == 22 && told {
				d.Forget("old")
			}
			d.Observe(Sample{Edge: edge, End: epoch.Add(time.Duration(k) * time.Second), Interval: time.Second, Issued: 30, Succeeded: 30})
			if k > 24 && !near(d.Rate(), 30, 0.02) || d.Rate() < 29 {
				t.Errorf("told %v, second %d: %v", told, k, d.Rate())
			}
		}
	}
}

// A report may come early or late; its real interval counts, not the second.
func TestTheRealIntervalCounts(t *testing.T) {
	var d Demand
	now := epoch
	for k := range 20 {
		interval := time.Duration(500+100*(k%10)) * time.Millisecond
		now = now.Add(interval)
		issued := uint64(interval / (10 * time.Millisecond))
		d.Observe(Sample{Edge: "a", End: now, Interval: interval, Issued: issued, Succeeded: issued})
	}
	if !near(d.Rate(), 100, 0.01) {
		t.Errorf("%v", d.Rate())
	}
	d.Observe(Sample{Edge: "a", End: now, Interval: 0, Issued: 5}) // nothing to divide by
}

func TestLearnedSharesWaitForEveryEdge(t *testing.T) {
	var d Demand
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	edges := []string{"a", "b"}
	for s := 1; s <= 3; s++ {
		d.Observe(Sample{Edge: "a", End: at(s), Interval: time.Second, Issued: 30})
	}
	if d.Settled(edges, epoch, at(3)) {
		t.Error("b has not reported")
	}
	d.Observe(Sample{Edge: "a", End: at(4), Interval: time.Second, Issued: 30})
	if d.Settled(edges, epoch, at(4)) {
		t.Error("b is waited for, for 5 s")
	}
	if !d.Settled(edges, epoch, at(5)) {
		t.Error("b is waited for no longer")
	}
	d.Observe(Sample{Edge: "b", End: at(6), Interval: time.Second, Issued: 30})
	if d.Settled(edges, epoch, at(6)) {
		t.Error("one report of b is not enough to know its demand")
	}
}

func TestWhatIsWorthAMove(t *testing.T) {
	shares := func(region string, west, east uint32) RegionShares {
		return RegionShares{Region: region, Shares: []Share{{"us-east", east}, {"us-west", west}}}
	}
	both := []Capacity{{"us-east", "us", 1, 1}, {"us-west", "us", 1, 1}}
	demand := map[string]float64{"us": 99, "eu": 1}
	held := shares("us", 500_000, 500_000)
	held.HeldOut = []fleet.ClusterName{"us-west"}
	down := shares("us", 500_000, 500_000)
	down.Dead = []fleet.ClusterName{"us-west"}
	for _, c := range []struct {
		why  string
		move Move
		want bool
	}{
		{"nothing changed", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 500_000, 500_000)}}, false},
		{"0.9 % of the requests", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 509_000, 491_000)}}, false},
		{"1.1 %", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 511_200, 488_800)}}, true},
		{"1.1 %, learned", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 511_200, 488_800)}, Learned: true}, false},
		{"half of a region with 1 % of the demand", Move{
			Old: []RegionShares{shares("eu", 500_000, 500_000), shares("us", 500_000, 500_000)},
			New: []RegionShares{shares("eu", 1_000_000, 0), shares("us", 500_000, 500_000)}}, false},
		{"both together", Move{
			Old: []RegionShares{shares("eu", 500_000, 500_000), shares("us", 500_000, 500_000)},
			New: []RegionShares{shares("eu", 1_000_000, 0), shares("us", 506_000, 494_000)}}, true},
		{"a new region", Move{New: []RegionShares{shares("us", 500_000, 500_000)}}, true},
		{"held out", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{held}}, true},
		{"dead", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{down}}, true},
		{"0.1 % of us-west, which lost its last endpoint", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", Whole}}}}, Members: both[:1]}, true},
		{"0.1 % of us-west, set to scaler 0", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", Whole}}}}, Members: []Capacity{both[0], {"us-west", "us", 1, 0}}}, true},
		{"0.1 % of us-west, which is well", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", Whole}}}}}, false},
	} {
		c.move.Demand = demand
		if c.move.Members == nil {
			c.move.Members = both
		}
		if got := c.move.Worth(); got != c.want {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}

// Errors are answers: only who fails before a request gets there is dead, until any edge reaches it.
func TestDead(t *testing.T) {
	var h Health
	type row struct {
		edge                   string
		reached, open, ok, bad uint64
		held, dead             bool
	}
	now := time.Unix(1_800_000_000, 0)
	for i, r := range []row{
		{"a", 1, 1, 0, 0, false, false}, // a slow answer is awaited, and nothing has failed
		{"a", 0, 1, 0, 0, false, false},
		{"a", 20, 0, 0, 20, false, false}, // answers of 500
		{"a", 20, 0, 0, 20, true, false},  // held out, and there
		{"a", 0, 0, 0, 3, true, false},    // no connection
		{"a", 1, 0, 0, 0, true, false},    // a request got there, whatever failed meanwhile
		{"a", 0, 0, 0, 9, true, false},    // just now
		{"a", 0, 0, 0, 0, true, true},     // every endpoint is ejected
		{"a", 0, 0, 0, 0, true, true},
		{"b", 1, 0, 0, 1, true, false}, // b gets there
		{"a", 0, 0, 0, 9, true, false}, // what b says counts
		{"b", 0, 0, 0, 1, true, true},
		{"c", 1, 0, 0, 0, true, false}, // one that saw nothing fail
		{"a", 0, 0, 0, 1, true, false},
		{"b", 0, 0, 0, 0, true, false}, // what failed before c got there is over
		{"a", 0, 0, 0, 3, true, true},
		{"a", 1, 1, 0, 1, true, false}, // a slow answer is awaited
		{"a", 0, 1, 0, 9, true, false},
		{"b", 0, 0, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, false},
		{"a", 0, 1, 0, 9, true, true}, // a stream, and no other gets there
		{"a", 1, 0, 0, 1, true, false},
		{"a", 1, 0, 1, 0, false, false},
		{"a", 90, 0, 80, 22, false, false}, // the second of its death
		{"a", 0, 0, 0, 0, false, false},    // one report is a blip
		{"a", 0, 0, 0, 0, true, false},
		{"a", 0, 0, 0, 4, true, true},
		{"a", 1, 0, 1, 4, false, false}, // a lone client, one of whose tries got through
		{"a", 0, 0, 0, 0, false, false},
		{"a", 0, 0, 0, 0, false, false}, // that says nothing of the others
		{"a", 1, 0, 1, 0, false, false},
		{"a", 0, 0, 0, 3, false, false},
		{"a", 2, 0, 0, 2, false, false}, // other endpoints are there
		{"a", 0, 0, 0, 0, false, false},
		{"a", 0, 0, 0, 3, false, false}, // three without a connection since
		{"a", 1, 0, 1, 0, false, false},
		{"a", 0, 0, 0, 3, false, false}, // a lone client
		{"a", 0, 0, 0, 1, true, true},
	} {
		now = now.Add(time.Second)
		wasHeld, was := len(h.HeldOut()), len(h.Dead())
		changed := h.Observe(Outcome{Edge: r.edge, Cluster: "us-west", At: now, Reached: r.reached, Open: r.open, Succeeded: r.ok, Failed: r.bad})
		if held, dead := len(h.HeldOut()) == 1, len(h.Dead()) == 1; held != r.held || dead != r.dead {
			t.Errorf("row %d: held out %v, dead %v", i, held, dead)
		}
		if changed != (wasHeld != len(h.HeldOut()) || was != len(h.Dead())) {
			t.Errorf("row %d: changed %v", i, changed)
		}
	}
	if h.Forget("a"); len(h.Dead()) != 1 {
		t.Error("an edge that goes away revives a member")
	}
	if h.Retry("us-west"); len(h.Dead()) != 0 {
		t.Error("a member that is tried again is still dead")
	}
	h.Hold("us-west", true, now)
	if h.Observe(Outcome{Edge: "b", Cluster: "us-west", At: now, Reached: 5}); len(h.Dead()) != 0 {
		t.Error("who is reached is still dead")
	}
}

// Who is held out and has had no request for half a minute is tried again: its part may be none of few requests. Each
// time in vain it takes twice as long.
func TestUntriedMembersAreRetried(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var h Health
	fail := func(after time.Duration, failed uint64) {
		now = now.Add(after)
		h.Observe(Outcome{Edge: "a", Cluster: "us-west", At: now, Failed: failed})
	}
	expires := func(after time.Duration, allDead bool, want ...fleet.ClusterName) {
		t.Helper()
		if got := h.Expire(now.Add(after), allDead); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	h.Hold("eu-west", false, now)
	fail(time.Second, 4)
	fail(time.Second, 4)
	fail(20*time.Second, 1)
	expires(7*time.Second, false)
	expires(8*time.Second, true) // us-west was tried, and tells of eu-west, too
	expires(8*time.Second, false, "eu-west")
	fail(20*time.Second, 0) // no request
	expires(9*time.Second, false)
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		if h.held["us-west"].over {
			fail(0, 4)
			fail(time.Second, 4)
		}
		now = h.held["us-west"].tried
		if len(h.Dead()) != 1 {
			t.Error("it failed again, and is not dead")
		}
		expires(wait-time.Second, false)
		expires(wait, false, "us-west")
		if len(h.HeldOut())+len(h.Dead()) > 0 {
			t.Error("it is tried, and held out")
		}
		expires(time.Hour, false)
	}
	h.Observe(Outcome{Edge: "a", Cluster: "us-west", At: now, Reached: 1, Succeeded: 1})
	fail(0, 4)
	fail(time.Second, 4)
	expires(30*time.Second, false, "us-west") // after a success it begins anew
}

func TestHealthStories(t *testing.T) {
	var h Health
	type row struct {
		edge      string
		ok, bad   uint64
		heldAfter bool
	}
	for i, r := range []row{
		{"a", 0, 300, false}, // one report is a blip
		{"b", 9, 0, false},   // and b still reaches it
		{"a", 0, 300, false}, // so a's failures start anew: a partition of one edge moves nothing
		{"b", 0, 0, false},   // b asked nobody before and now: silence alone says nothing
		{"a", 0, 0, true},    // a asks nobody any more: it has ejected every endpoint
		{"a", 0, 5, true},
		{"b", 0, 5, true},
		{"a", 1, 4, false}, // one success: back at once
		{"a", 0, 4, false},
		{"a", 0, 1, false}, // two reports, but only 9 requests
		{"b", 0, 1, true},  // 10 together
		{"a", 7, 0, false},
		{"a", 0, 0, false}, // nobody failed: silence says nothing
		{"a", 0, 0, false},
		{"a", 90, 10, false}, // it died in the middle of this one
		{"a", 0, 0, false},
		{"a", 0, 0, true}, // and a has ejected all of it since
		{"a", 9, 9, false},
		{"a", 0, 0, false},
		{"a", 0, 0, false}, // too few to tell
		{"a", 50, 50, false},
		{"b", 1, 0, false}, // b still reaches it
		{"a", 0, 0, false},
		{"a", 0, 0, false},
		{"a", 0, 9, false},
		{"a", 0, 9, true},
	} {
		before := len(h.HeldOut()) > 0
		changed := h.Observe(Outcome{Edge: r.edge, Cluster: "us-west", Reached: r.ok + r.bad, Succeeded: r.ok, Failed: r.bad})
		if held := len(h.HeldOut()) > 0; held != r.heldAfter || changed != (held != before) {
			t.Errorf("row %d: held %v, changed %v", i, held, changed)
		}
	}
	if !h.Retry("us-west") || len(h.HeldOut()) > 0 {
		t.Error("a member that is said to be back is tried")
	}
	h.Hold("eu-west", false, time.Time{})
	if got := h.HeldOut(); len(got) != 1 || !h.Observe(Outcome{Edge: "a", Cluster: "eu-west", Succeeded: 1}) {
		t.Errorf("learned: %v", got)
	}
}
