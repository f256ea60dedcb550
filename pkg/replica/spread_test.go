package replica

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		own    int
		others []int
		want   bool
	}{
		{100, nil, false}, {3, []int{0}, false}, {5, []int{0}, false}, {6, []int{0}, true}, {60, []int{40}, false}, {63, []int{37}, true}, {10, []int{10, 10}, false}, {0, []int{9}, false},
	} {
		if got := (&Spread{}).TooMany(c.own, c.others); got != c.want {
			t.Errorf("%d beside %v: %v", c.own, c.others, got)
		}
	}
}

// Wherever moved clients go, moving ends, with no replica far above its part; and after that nobody begins again.
func TestSpreadEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 100), 2, 4).Draw(t, "counts")
		spreads := make([]Spread, len(counts))
		step := func() (moved bool) {
			for i := range counts {
				others := slices.Delete(slices.Clone(counts), i, i+1)
				if spreads[i].TooMany(counts[i], others) {
					moved = true
					counts[i]--
					counts[rapid.IntRange(0, len(counts)-1).Draw(t, "to")]++
				}
			}
			return moved
		}
		quiet := 0
		for range 20_000 {
			if quiet++; step() {
				quiet = 0
			}
			if quiet == 3 {
				break
			}
		}
		if quiet < 3 {
			t.Skip("the load balancer always chose the fullest")
		}
		all := 0
		for _, n := range counts {
			all += n
		}
		part := (all + len(counts) - 1) / len(counts)
		if most := slices.Max(counts); most > part+max(2, part/4) {
			t.Fatalf("it ended with %v", counts)
		}
	})
}
