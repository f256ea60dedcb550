package traffic

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Where a drain moves one member's share, it moves all shares in a straight line, whatever the rate, the mode and the
// regions; the member keeps exactly what is not drained. So no member gets half way more than before or at the end.
func TestADrainIsAStraightLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		k := rapid.IntRange(0, len(in.Members)-1).Draw(t, "member")
		for i := range in.Members {
			in.Members[i].Drained = rapid.SampledFrom([]float64{0, 0, 0, 1}).Draw(t, "others")
		}
		if !slices.ContainsFunc(in.Members, func(m Capacity) bool { return m.Cluster != in.Members[k].Cluster && m.Usable() }) {
			t.Skip("no other member can take anything")
		}
		drained := rapid.Float64Range(0, 1).Draw(t, "drained")
		at := func(d float64) []RegionShares {
			c := clone(in)
			c.Members[k].Drained = d
			return Split(c)
		}
		none, some, all := at(0), at(drained), at(1)
		for i, r := range some {
			for _, m := range in.Members {
				want := (1-drained)*float64(none[i].PartsOf(m.Cluster)) + drained*float64(all[i].PartsOf(m.Cluster))
				if got := float64(r.PartsOf(m.Cluster)); math.Abs(got-want) > 3 {
					t.Fatalf("%s -> %s has %v parts, the line %v", r.Region, m.Cluster, got, want)
				}
			}
			want := (1 - drained) * float64(none[i].PartsOf(in.Members[k].Cluster))
			if got := float64(r.PartsOf(in.Members[k].Cluster)); math.Abs(got-want) > 3 {
				t.Fatalf("%s -> the drained member has %v parts, want %v", r.Region, got, want)
			}
		}
	})
}

// Where no other member can take anything, a drain moves nothing.
func TestADrainOfTheOnlyMemberMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		k := rapid.IntRange(0, len(in.Members)-1).Draw(t, "member")
		for i := range in.Members {
			if in.Members[i].Drained = 0; i != k {
				in.Members[i].Ready = 0
			}
		}
		before := Split(in)
		in.Members[k].Drained = rapid.Float64Range(0, 1).Draw(t, "drained")
		for i, r := range Split(in) {
			if !slices.Equal(r.Shares, before[i].Shares) {
				t.Fatalf("%s has shares %v, had %v", r.Region, r.Shares, before[i].Shares)
			}
		}
	})
}
