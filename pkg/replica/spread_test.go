package replica

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTooMany(t *testing.T) {
	for _, c := range []struct {
		own    int
		others []int
		want   bool
	}{
		{100, nil, false}, {1, []int{0}, false}, {2, []int{0}, true}, {2, []int{1}, false}, {11, []int{9}, true}, {4, []int{3, 3}, false},
		{2, []int{2, 0}, true}, {0, []int{9}, false},
	} {
		if got := TooMany(c.own, c.others); got != c.want {
			t.Errorf("%d beside %v: %v", c.own, c.others, got)
		}
	}
}

// Each client that goes from a replica with too many to the one with the fewest brings the end nearer, and the end is that
// none has two more than another.
func TestMovingEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 100), 2, 4).Draw(t, "counts")
		rest := func(i int) []int { return slices.Delete(slices.Clone(counts), i, i+1) }
		for range 400 {
			for i := range counts {
				if TooMany(counts[i], rest(i)) {
					counts[i]--
					counts[slices.Index(counts, slices.Min(counts))]++
				}
			}
		}
		if slices.Max(counts)-slices.Min(counts) > 1 {
			t.Fatalf("it ended with %v", counts)
		}
	})
}
