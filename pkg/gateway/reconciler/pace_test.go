package reconciler

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func at(milliseconds int) time.Time { return noon.Add(time.Duration(milliseconds) * time.Millisecond) }

// replay plays events (milliseconds after noon) against a pace whose builds
// take a fixed time, and gives when builds began. Negative events are answers,
// looked at as long.
func replay(events []int, takes int) []int {
	var p pace
	answers := false
	var builds []int
	build := func(until int) {
		for {
			due, waits := p.due()
			if !waits || due.After(at(until)) {
				return
			}
			ended := due.Add(time.Duration(takes) * time.Millisecond)
			if answers {
				p.looked(due, ended)
				continue
			}
			builds = append(builds, int(due.Sub(noon).Milliseconds()))
			p.built(due, ended)
		}
	}
	for _, e := range events {
		build(max(e, -e) - 1)
		answers = e < 0
		p.event(at(max(e, -e)))
	}
	build(1 << 20)
	return builds
}

func TestPace(t *testing.T) {
	storm := make([]int, 120)
	for i := range storm {
		storm[i] = i
	}
	for _, story := range []struct {
		name   string
		events []int
		takes  int
		want   []int
	}{
		{"one change goes out at once", []int{100}, 5, []int{100}},
		{"three objects of one apply are two builds", []int{100, 101, 102}, 5, []int{100, 125}},
		{"a storm is built each 50 ms, and at its end", storm, 1, []int{0, 51, 102, 121}},
		{"changes one after another wait for none before", []int{100, 200, 300}, 10, []int{100, 200, 300}},
		{"changes that follow soon are a storm", []int{100, 150, 151}, 5, []int{100, 153}},
		{"builds rest four times as long as they took", []int{100, 121, 131, 170}, 10, []int{100, 150, 200}},
		{"answers are no storm", []int{100, -180, 220}, 5, []int{100, 220}},
		{"but are rested after, too", []int{-180, 190}, 5, []int{205}},
		{"but never longer than a change may wait", []int{100, 130}, 400, []int{100, 550}},
	} {
		t.Run(story.name, func(t *testing.T) {
			got := replay(story.events, story.takes)
			if len(got) != len(story.want) {
				t.Fatalf("builds at %v, want %v", got, story.want)
			}
			for i := range got {
				if got[i] != story.want[i] {
					t.Fatalf("builds at %v, want %v", got, story.want)
				}
			}
		})
	}
}
