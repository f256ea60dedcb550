package traffic

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// gapped are two edges of which the reports of some are lost for a time. Clients use one of them, and then the other.
type gapped struct {
	before, after int // the edges that clients use
	change        time.Duration
	phase         time.Duration // between the edges' reports
	begin, end    time.Duration // of the gap
	away          []int         // the edges that are known to be away in it; none: both are silent
	lost          func(now time.Duration, edge int) bool
}

// movesAtOnce says whether a constant demand moves shares at once, and between what the estimate is.
func (g gapped) movesAtOnce() (moves bool, estimates string) {
	const rate = 30
	var d Demand
	c := &clock{edges: 2, rate: constant(rate), phase: g.phase, goesTo: func(now time.Duration, _ int) int {
		if now < g.change {
			return g.before
		}
		return g.after
	}, lost: g.lost}
	c.run(&d, g.begin)
	for _, edge := range g.away {
		d.Away(fmt.Sprint(edge), epoch.Add(g.begin))
	}
	lowest, highest := d.Rate(), d.Rate()
	c.after = func(time.Duration) { lowest, highest = min(lowest, d.Rate()), max(highest, d.Rate()) }
	c.run(&d, g.end+20*time.Second)
	return movesAtOnce(lowest, rate) || movesAtOnce(highest, rate), fmt.Sprintf("%+v: between %.1f and %.1f", g, lowest, highest)
}

// After a gap an edge's first report says how many requests it gets, and not which of them are new: clients that change
// their edge about then count once.
func TestClientsChangeAtTheEndOfAGap(t *testing.T) {
	for phase := 50 * time.Millisecond; phase < time.Second; phase += 300 * time.Millisecond {
		for change := -3500 * time.Millisecond; change < 4*time.Second; change += 230 * time.Millisecond {
			for before := range 2 {
				for _, away := range [][]int{{0}, {1}, {0, 1}, {}} {
					for _, length := range []time.Duration{3 * time.Second, 60 * time.Second} {
						g := gapped{before: before, after: 1 - before, phase: phase, begin: 10020 * time.Millisecond, away: away}
						g.end = g.begin + length
						g.change = g.end + change
						g.lost = func(now time.Duration, edge int) bool {
							return now >= g.begin && now < g.end && (len(away) != 1 || edge == away[0])
						}
						if moves, estimates := g.movesAtOnce(); moves {
							t.Error(estimates)
						}
					}
				}
			}
		}
	}
}

// An edge with many endpoints is asked for an idle import in turn with others, and so reports it seldom. A fall at the edge
// that is used is seen all the same.
func TestFallBesideEdgesThatReportSeldom(t *testing.T) {
	for _, every := range []int{3, 12} {
		var d Demand
		for second := range 60 {
			now := epoch.Add(time.Duration(second) * time.Second)
			issued := uint64(30)
			if second >= 30 {
				issued = 10
			}
			for idle := range 7 {
				if (second+idle)%every == 0 {
					d.Observe(Sample{Edge: fmt.Sprint("idle-", idle), End: now, Interval: time.Second})
				}
			}
			d.Observe(Sample{Edge: "used", End: now.Add(300 * time.Millisecond), Interval: time.Second, Issued: issued, Succeeded: issued})
			if second == 29 && math.Abs(d.Rate()-30) > 1 {
				t.Errorf("every %d s: %.1f of 30 requests per second", every, d.Rate())
			}
		}
		if d.Rate() > 12 {
			t.Errorf("every %d s: after a fall from 30 to 10 requests per second the estimate is %.1f", every, d.Rate())
		}
	}
}
