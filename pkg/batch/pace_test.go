package batch

import (
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func at(milliseconds int) time.Time { return noon.Add(time.Duration(milliseconds) * time.Millisecond) }

// replay plays events (milliseconds after noon) against a Pace whose runs take
// a fixed time, and returns when runs began. A negative event leads to a run
// that finds nothing to do and takes as long.
func replay(p Pace, events []int, takes int) []int {
	idle := false
	var runs []int
	run := func(until int) {
		for {
			due, waits := p.Due()
			if !waits || due.After(at(until)) {
				return
			}
			ended := due.Add(time.Duration(takes) * time.Millisecond)
			if idle {
				p.Skipped(due, ended)
				continue
			}
			runs = append(runs, int(due.Sub(noon).Milliseconds()))
			p.Ran(due, ended)
		}
	}
	for _, e := range events {
		run(max(e, -e) - 1)
		idle = e < 0
		p.Event(at(max(e, -e)))
	}
	run(1 << 20)
	return runs
}

func TestPace(t *testing.T) {
	burst := make([]int, 120)
	for i := range burst {
		burst[i] = i
	}
	batched := Pace{IdleDelay: 2 * time.Millisecond, MaxDelay: 50 * time.Millisecond, CooldownFactor: 4}
	prompt := Pace{MaxDelay: 10 * time.Millisecond, CooldownFactor: 2}
	for _, test := range []struct {
		name   string
		pace   Pace
		events []int
		takes  int
		want   []int
	}{
		{"the first change runs at once", batched, []int{100}, 5, []int{100}},
		{"three objects of one apply are two runs", batched, []int{100, 101, 102}, 5, []int{100, 125}},
		{"a burst runs every 50 ms, and at its end", batched, burst, 1, []int{0, 51, 102, 121}},
		{"changes far apart do not wait", batched, []int{100, 200, 300}, 10, []int{100, 200, 300}},
		{"changes that follow soon are a burst", batched, []int{100, 150, 151}, 5, []int{100, 153}},
		{"a run is followed by a pause four times as long", batched, []int{100, 121, 131, 170}, 10, []int{100, 150, 200}},
		{"a run that found nothing to do starts no burst", batched, []int{100, -180, 220}, 5, []int{100, 220}},
		{"but is followed by the same pause", batched, []int{-180, 190}, 5, []int{205}},
		{"no pause is longer than MaxDelay", batched, []int{100, 130}, 400, []int{100, 550}},
		{"without IdleDelay only the pause counts", prompt, []int{100, 101, 104, 120}, 3, []int{100, 109, 120}},
		{"which is at most MaxDelay there, too", prompt, []int{100, 101}, 30, []int{100, 140}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := replay(test.pace, test.events, test.takes); !slices.Equal(got, test.want) {
				t.Fatalf("runs at %v, want %v", got, test.want)
			}
		})
	}
}
