package traffic

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
)

func notAlone(fleet.ClusterName) bool { return false }

func parts(west, east int) []Capacity {
	return []Capacity{{Cluster: "west", Ready: west, Scaler: 1}, {Cluster: "east", Ready: east, Scaler: 1}}
}

// Seconds of one import: what the members have, and what counts.
func TestPace(t *testing.T) {
	var p Pace
	start := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		second     int
		west, east int
		alone      bool
		want       string
		why        string
	}{
		{0, 4, 0, false, "4 0", "an import's first endpoints"},
		{1, 4, 3, false, "4 3", "a cluster that joins has its share at once"},
		{2, 4, 60000, false, "4 4", "up to the largest other part"},
		{5, 4, 60000, false, "4 4", "for 10 s"},
		{11, 4, 60000, false, "4 8", "then it doubles"},
		{12, 4, 2, false, "4 2", "a loss counts at once"},
		{13, 4, 9, false, "4 4", "and a return counts up to the largest other part"},
		{14, 0, 9, true, "0 9", "where the others have none left"},
		{15, 7, 9, false, "7 9", "a cluster that comes back"},
		{30, 8, 9, false, "8 9", "a rollout's surge"},
		{31, 14, 9, false, "14 9", "a scale-up that less than doubles"},
	} {
		got, waits := p.Limit(parts(c.west, c.east), func(fleet.ClusterName) bool { return c.alone }, start.Add(time.Duration(c.second)*time.Second))
		if text := fmt.Sprint(got[0].Ready, " ", got[1].Ready); text != c.want {
			t.Errorf("second %d, %s: %s count, want %s", c.second, c.why, text, c.want)
		}
		if limited := got[0].Ready < c.west || got[1].Ready < c.east; waits != limited {
			t.Errorf("second %d: waits is %v", c.second, waits)
		}
	}
}

// Laws: never more counts than there is; a part that has endpoints counts; in 10 s no part more than doubles beyond what
// the others had; and what stays in the end counts whole.
func TestPaceLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Pace
		now := time.Unix(1_800_000_000, 0)
		type seen struct {
			at    time.Time
			count [2]int
		}
		var history []seen
		have := [2]int{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 6000).Draw(t, "ms")) * time.Millisecond)
			have = [2]int{rapid.IntRange(1, 200).Draw(t, "west"), rapid.IntRange(1, 200).Draw(t, "east")}
			got, _ := p.Limit(parts(have[0], have[1]), notAlone, now)
			count := [2]int{got[0].Ready, got[1].Ready}
			for i := range count {
				if count[i] > have[i] || count[i] == 0 {
					t.Fatalf("%d of %d count", count[i], have[i])
				}
				largest, recent := 0, false
				for _, h := range history {
					if now.Sub(h.at) < 2*paceWindow {
						largest, recent = max(largest, 4*h.count[i], h.count[1-i]), true // the windows of two instants 10 s apart may be two
					}
				}
				if recent && count[i] > max(largest, 2) {
					t.Fatalf("%d count, and at most %d did in the last 20 s", count[i], largest)
				}
			}
			history = append(history, seen{now, count})
		}
		for range 10 {
			now = now.Add(paceWindow)
			p.Limit(parts(have[0], have[1]), notAlone, now)
		}
		if got, waits := p.Limit(parts(have[0], have[1]), notAlone, now); waits || got[0].Ready != have[0] || got[1].Ready != have[1] {
			t.Fatalf("after 100 s %v count", got)
		}
	})
}
