package traffic

import (
	"cmp"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
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
	// phase is how much later each edge reports than the one before; 0: evenly. goesTo is the edge of a request; nil: each
	// in turn.
	phase  time.Duration
	goesTo func(now time.Duration, request int) int
	// lost says of a report whether it does not come; nil: all come.
	lost func(now time.Duration, edge int) bool
}

const tick = time.Millisecond

// run feeds the estimate until the given time.
func (c *clock) run(d *Demand, until time.Duration) {
	if c.counts == nil {
		c.counts = make([]uint64, c.edges)
	}
	phase := cmp.Or(c.phase, time.Duration(1000/c.edges)*tick)
	for ; c.now < until; c.now += tick {
		before := math.Floor(c.sent)
		c.sent += c.rate(c.now) * tick.Seconds()
		for range int(math.Floor(c.sent) - before) {
			edge := c.next % c.edges
			if c.goesTo != nil {
				edge = c.goesTo(c.now, c.next)
			}
			c.counts[edge]++
			c.next++
		}
		for e := range c.edges {
			if (c.now-time.Duration(e)*phase)%time.Second != 0 || c.now < time.Second {
				continue
			}
			s := Sample{Edge: fmt.Sprint(e), End: epoch.Add(c.now), Interval: time.Second, Issued: c.counts[e], Succeeded: c.counts[e]}
			if c.health != nil && !c.health(c.now) {
				s.Succeeded, s.Issued, s.Failed = 0, 0, min(c.counts[e], 3) // the rest finds every host ejected
			}
			c.counts[e] = 0
			if c.lost != nil && c.lost(c.now, e) {
				continue
			}
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
	in := SplitInput{Rate: 10, Members: []Capacity{{"us-west", "us", 2, 1, 0}, {"eu-west", "eu", 2, 1, 0}},
		Regions: []RegionDemand{{Region: "us", Demand: rate}}}
	return Move{New: Split(in), Members: in.Members, Demand: map[string]float64{"us": rate}}
}

// A constant demand moves no share at once when the window is full, whichever edges count it and when: what comes of
// counting whole requests in each edge is small.
func TestConstantDemandMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(25, 400).Draw(t, "rate")
		c := &clock{edges: rapid.IntRange(1, 3).Draw(t, "edges"), rate: constant(rate), sent: rapid.Float64Range(0, 1).Draw(t, "phase")}
		lowest, highest := c.extremes(9*time.Second, 60*time.Second)
		if !near(lowest, rate, 0.025) || !near(highest, rate, 0.025) || movesAtOnce(lowest, highest) {
			t.Fatalf("between %v and %v", lowest, highest)
		}
	})
}

// A step from 10 to 30 requests per second counts mostly with the first report after it, and fully with the first report
// that began after it.
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

// A fall counts within three windows of three seconds, and not at once.
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

// While everything is down, Envoy counts a few failures and then nothing, but clients still send. The estimate is kept,
// and the low counts are not averaged into it afterwards.
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

// After failures the clients may really have left: after a minute without any request the demand is 0.
func TestDemandEndsAMinuteAfterTheLastRequest(t *testing.T) {
	var d Demand
	c := &clock{edges: 1, rate: step(30, 0, 20*time.Second), health: func(now time.Duration) bool { return now < 10*time.Second }}
	c.run(&d, 75*time.Second)
	if !near(d.Rate(), 30, 0.06) {
		t.Errorf("dropped early: %v", d.Rate())
	}
	c.run(&d, 95*time.Second)
	if d.Rate() != 0 {
		t.Errorf("never dropped: %v", d.Rate())
	}
}

// An import without endpoints anywhere is counted in no report, and its demand is kept, too.
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

// One edge is replaced by another with the same clients: the estimate neither falls nor doubles for long, also where the
// old edge is not forgotten.
func TestAnEdgeIsReplaced(t *testing.T) {
	for _, forgotten := range []bool{true, false} {
		var d Demand
		for k := 1; k < 40; k++ {
			edge := "old"
			if k > 20 {
				edge = "new"
			}
			if k == 22 && forgotten {
				d.ForgetEdge("old")
			}
			d.Observe(Sample{Edge: edge, End: epoch.Add(time.Duration(k) * time.Second), Interval: time.Second, Issued: 30, Succeeded: 30})
			if k > 24 && !near(d.Rate(), 30, 0.02) || d.Rate() < 29 {
				t.Errorf("forgotten %v, second %d: %v", forgotten, k, d.Rate())
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

// Learned shares stay until every edge has reported, for 5 s at most.
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
		t.Error("5 s are not over, and b has not reported")
	}
	if !d.Settled(edges, epoch, at(5)) {
		t.Error("the wait for b ends after 5 s")
	}
	d.Observe(Sample{Edge: "b", End: at(6), Interval: time.Second, Issued: 30})
	if d.Settled(edges, epoch, at(6)) {
		t.Error("one report of b is not enough to know its demand")
	}
}

// stalling is a constant demand whose requests gather from time to time, and are sent all at once then: the clients, or the
// network before the edges, did not get on for a moment.
func stalling(rate float64, every, stall time.Duration) func(time.Duration) float64 {
	return func(now time.Duration) float64 {
		switch at := now % every; {
		case at < stall:
			return 0
		case at < stall+tick:
			return rate * (stall + tick).Seconds() / tick.Seconds()
		default:
			return rate
		}
	}
}

// Requests that gathered make up for those that were missing before: a stall moves no share at once, whenever it is and
// whatever edges count it.
func TestAStallMovesNothing(t *testing.T) {
	for _, edges := range []int{1, 2, 4} {
		for every := 3 * time.Second; every < 12*time.Second; every += 1370 * time.Millisecond {
			for stall := 50 * time.Millisecond; stall <= 750*time.Millisecond; stall += 50 * time.Millisecond {
				c := &clock{edges: edges, rate: stalling(30, every, stall)}
				if lowest, highest := c.extremes(9*time.Second, 60*time.Second); movesAtOnce(lowest, 30) || movesAtOnce(highest, 30) {
					t.Errorf("%d edges, a stall of %v every %v: between %.1f and %.1f", edges, stall, every, lowest, highest)
				}
			}
		}
	}
}

// extremes are the lowest and highest estimates in a time.
func (c *clock) extremes(from, to time.Duration) (lowest, highest float64) {
	var d Demand
	c.run(&d, from)
	lowest, highest = d.Rate(), d.Rate()
	c.after = func(time.Duration) { lowest, highest = min(lowest, d.Rate()), max(highest, d.Rate()) }
	c.run(&d, to)
	return lowest, highest
}

// movesAtOnce says whether an estimate moves shares that were divided by another without waiting for SmallMoveDelay.
func movesAtOnce(estimate, before float64) bool {
	m := overflowing(estimate)
	m.Old = overflowing(before).New
	return m.Significant() && !m.Small()
}

// Edges report at different times. Clients that change from one to another are counted by both or by none of them for a
// moment, and move no share at once.
func TestClientsThatChangeTheirEdgeMoveNothing(t *testing.T) {
	for every := 2 * time.Second; every < 14*time.Second; every += 1370 * time.Millisecond {
		for phase := 50 * time.Millisecond; phase < time.Second; phase += 50 * time.Millisecond {
			c := &clock{edges: 2, rate: constant(30), phase: phase, goesTo: func(now time.Duration, _ int) int { return int(now/every) % 2 }}
			if lowest, highest := c.extremes(9*time.Second, 60*time.Second); movesAtOnce(lowest, 30) || movesAtOnce(highest, 30) {
				t.Errorf("edges report %v apart, clients change every %v: between %.1f and %.1f", phase, every, lowest, highest)
			}
		}
	}
}

// An edge reports early when it has requests for a cluster that it was not asked for. Until its next report, as late as
// all others, it is not silent.
func TestAnEarlyReportIsNoSilence(t *testing.T) {
	var d Demand
	report := func(edge string, end, interval time.Duration) {
		n := uint64(100 * interval.Seconds())
		d.Observe(Sample{Edge: edge, End: epoch.Add(end), Interval: interval, Issued: n, Succeeded: n})
	}
	const early = 300 * time.Millisecond
	for second := range 10 {
		report("one", time.Duration(second)*time.Second, time.Second)
		report("two", time.Duration(second)*time.Second+200*time.Millisecond, time.Second)
	}
	report("one", 9*time.Second+early, early)
	report("two", 10*time.Second+200*time.Millisecond, time.Second)
	if got := d.Rate(); !near(got, 200, 0.01) {
		t.Errorf("two edges with 100 rps each: %.0f", got)
	}
}

// A report that says to cover hours is forgotten as soon as others are: whoever has stolen an edge's certificate would
// otherwise need one report to hold a region's demand.
func TestReportOfHours(t *testing.T) {
	for _, interval := range []time.Duration{100 * time.Hour, math.MaxInt64} {
		d := &Demand{}
		c := &clock{edges: 1, rate: func(time.Duration) float64 { return 100 }}
		c.run(d, 10*time.Second)
		d.Observe(Sample{Edge: "liar", End: epoch.Add(c.now), Interval: interval, Issued: uint64(5000 * interval.Seconds()), Succeeded: 1})
		if rate := d.Rate(); rate < 4500 {
			t.Errorf("%s at 5000 a second: the rate is %.0f, and nobody could know that it is not", interval, rate)
		}
		c.run(d, time.Minute)
		if rate := d.Rate(); rate < 95 || rate > 105 {
			t.Errorf("50 s after a report of %s: the rate is %.0f, want 100", interval, rate)
		}
	}
}
