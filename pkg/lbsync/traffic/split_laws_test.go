package traffic

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

var regionNames = []string{"ap", "eu", "sa", "us"}

// drawFleet draws up to four regions and eight members.
func drawFleet(t *rapid.T) SplitInput {
	in := SplitInput{
		Rate: rapid.SampledFrom([]float64{0, 1, 7, 10}).Draw(t, "rate"),
		Mode: rapid.SampledFrom([]model.Mode{"", model.Waterfall, model.Spray}).Draw(t, "mode"),
	}
	for i := range rapid.IntRange(1, 8).Draw(t, "members") {
		in.Members = append(in.Members, Capacity{
			Cluster: fleet.ClusterName(fmt.Sprintf("m%d", i)),
			Region:  rapid.SampledFrom(regionNames).Draw(t, "home"),
			Ready:   rapid.IntRange(0, 6).Draw(t, "ready"),
			Scaler:  rapid.SampledFrom([]float64{0, 0.1, 0.25, 0.5, 1, 1, 1}).Draw(t, "scaler"),
			Drained: rapid.SampledFrom([]float64{0, 0, 0, 0, 0.25, 0.5, 1}).Draw(t, "drained"),
		})
	}
	for _, name := range regionNames[:rapid.IntRange(1, 4).Draw(t, "regions")] {
		in.Regions = append(in.Regions, RegionDemand{
			Region:  name,
			Demand:  rapid.SampledFrom([]float64{0, 0.5, 3, 10, 20, 30, 100}).Draw(t, "demand"),
			Nearest: rapid.SliceOfN(rapid.SampledFrom(regionNames), 0, 4).Draw(t, "nearest"),
		})
	}
	return in
}

func drawHeldOut(t *rapid.T, in *SplitInput) {
	for i := range in.Regions {
		for _, m := range in.Members {
			if rapid.IntRange(0, 3).Draw(t, "held out") == 0 {
				in.Regions[i].HeldOut = append(in.Regions[i].HeldOut, m.Cluster)
			}
		}
	}
}

// solve gives the exact fractions, before rounding, as requests per second by region and cluster.
func solve(in SplitInput) *solver {
	s := newSolver(in)
	s.place()
	return s
}

// load is what each member receives, in requests per second.
func (s *solver) load() []float64 {
	load := make([]float64, len(s.members))
	for _, r := range s.regions {
		for i, f := range r.placed {
			load[i] += f * r.demand
		}
	}
	return load
}

func TestDemandIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		drawHeldOut(t, &in)
		ready := slices.ContainsFunc(in.Members, func(m Capacity) bool { return m.Ready > 0 })
		for _, r := range solve(in).regions {
			sum := 0.0
			for _, f := range r.placed {
				sum += f
			}
			if ready && math.Abs(sum-1) > 1e-9 || !ready && sum != 0 {
				t.Fatalf("%s placed %v of its demand", r.name, sum)
			}
		}
		for _, r := range Split(in) {
			sum := uint32(0)
			for _, s := range r.Shares {
				sum += s.Parts
			}
			if ready && sum != TotalParts || !ready && sum != 0 {
				t.Fatalf("shares of %s sum to %d", r.Region, sum)
			}
		}
	})
}

// capacities returns each member's capacity and whether all demand fits into them.
func capacities(in SplitInput, s *solver) (capacity []float64, fits bool) {
	demand, total := 0.0, 0.0
	for _, m := range s.members {
		capacity = append(capacity, float64(m.Ready)*in.Rate*m.Scaler)
		total += capacity[len(capacity)-1]
	}
	for _, r := range s.regions {
		demand += r.demand
	}
	return capacity, demand <= total
}

func TestNoNumberBreaksTheSum(t *testing.T) {
	odd := []float64{math.NaN(), math.Inf(1), -1, 0, 1e308, 5e-324, 3}
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		in.Members = append(in.Members, Capacity{Cluster: "anchor", Region: "us", Ready: 1, Scaler: 1})
		in.Rate = rapid.SampledFrom(odd).Draw(t, "rate")
		for i := range in.Members {
			in.Members[i].Scaler = rapid.SampledFrom(odd).Draw(t, "scaler")
		}
		for i := range in.Regions {
			in.Regions[i].Demand = rapid.SampledFrom(odd).Draw(t, "demand")
		}
		for _, r := range Split(in) {
			sum := uint32(0)
			for _, s := range r.Shares {
				sum += s.Parts
			}
			if sum != TotalParts {
				t.Fatalf("%s: %v", r.Region, r.Shares)
			}
		}
	})
}

func TestNoMemberAboveCapacityWhileDemandFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		in.Rate = max(in.Rate, 1)
		s := solve(in)
		capacity, fits := capacities(in, s)
		if !fits {
			t.Skip("demand exceeds capacity")
		}
		for i, load := range s.load() {
			if load > capacity[i]*(1+1e-6) {
				t.Fatalf("%s gets %v, capacity %v", s.members[i].Cluster, load, capacity[i])
			}
		}
	})
}

func TestARankIsUnusedWhileAnEarlierOneHasCapacity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		in.Rate = max(in.Rate, 1)
		s := solve(in)
		capacity, fits := capacities(in, s)
		load := s.load()
		for _, r := range s.regions {
			for k, rank := range r.ranks {
				used := slices.ContainsFunc(rank, func(i int) bool { return r.placed[i] > 1e-9 })
				if r.noCapacity || !fits || !used {
					continue
				}
				for _, before := range r.ranks[:k] {
					for _, i := range before {
						if load[i] < capacity[i]*(1-1e-6) {
							t.Fatalf("%s uses rank %d although %s has capacity: %v of %v", r.name, k, s.members[i].Cluster, load[i], capacity[i])
						}
					}
				}
			}
		}
	})
}

func TestSameResultForEveryOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		drawHeldOut(t, &in)
		other := in
		other.Members = rapid.Permutation(in.Members).Draw(t, "members")
		other.Regions = rapid.Permutation(in.Regions).Draw(t, "regions")
		before := clone(other)
		a, b := Split(in), Split(other)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%v\n%v", a, b)
		}
		if !reflect.DeepEqual(before, other) {
			t.Fatal("Split changed its input")
		}
	})
}

func clone(in SplitInput) SplitInput {
	in.Members = slices.Clone(in.Members)
	in.Regions = slices.Clone(in.Regions)
	for i := range in.Regions {
		in.Regions[i].Nearest = slices.Clone(in.Regions[i].Nearest)
		in.Regions[i].HeldOut = slices.Clone(in.Regions[i].HeldOut)
	}
	return in
}

func TestAMemberSplitIntoZonesChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		k := rapid.IntRange(0, len(in.Members)-1).Draw(t, "split")
		other := clone(in)
		part := rapid.IntRange(0, in.Members[k].Ready).Draw(t, "part")
		zone := other.Members[k]
		zone.Cluster += "-zone"
		zone.Ready, other.Members[k].Ready = part, zone.Ready-part
		other.Members = append(other.Members, zone)
		a, b := byCluster(solve(in)), byCluster(solve(other))
		for key, share := range a {
			got := b[key]
			if key[1] == string(in.Members[k].Cluster) {
				got += b[[2]string{key[0], string(zone.Cluster)}]
			}
			if math.Abs(share-got) > 1e-6 {
				t.Fatalf("%v had %v, has %v", key, share, got)
			}
		}
	})
}

func byCluster(s *solver) map[[2]string]float64 {
	out := map[[2]string]float64{}
	for _, r := range s.regions {
		for i, m := range s.members {
			out[[2]string{r.name, string(m.Cluster)}] = r.placed[i]
		}
	}
	return out
}

// Continuity by bisection: between two settings of one number, follow the half in which the shares differ more. A
// continuous function ends with no difference, a jump survives every halving.
func TestSharesAreContinuous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawFleet(t)
		// With every scaler 0 the scalers count as 1 (step 4), which is a jump on purpose: one member keeps capacity.
		in.Members = append(in.Members, Capacity{Cluster: "anchor", Region: "us", Ready: 1, Scaler: 0.3})
		// A region without demand sends nothing, so the shares of its first request may jump.
		in.Regions = slices.DeleteFunc(in.Regions, func(r RegionDemand) bool { return r.Demand == 0 })
		if len(in.Regions) == 0 {
			t.Skip("no demand")
		}
		var set func(v float64) SplitInput
		if rapid.Bool().Draw(t, "a scaler moves") {
			k := rapid.IntRange(0, len(in.Members)-2).Draw(t, "member")
			set = func(v float64) SplitInput { c := clone(in); c.Members[k].Scaler = v; return c }
		} else {
			k := rapid.IntRange(0, len(in.Regions)-1).Draw(t, "region")
			set = func(v float64) SplitInput { c := clone(in); c.Regions[k].Demand = 0.01 + v*150; return c }
		}
		low, high := 0.0, 1.0
		for high-low > 1e-13 {
			mid := (low + high) / 2
			if apart(set(low), set(mid)) > apart(set(mid), set(high)) {
				high = mid
			} else {
				low = mid
			}
		}
		if jump := apart(set(low), set(high)); jump > 1e-3 {
			t.Fatalf("shares jump by %v at %v", jump, low)
		}
	})
}

// apart is the largest difference of one region's share of one member.
func apart(a, b SplitInput) float64 {
	x, y := byCluster(solve(a)), byCluster(solve(b))
	most := 0.0
	for key := range x {
		most = max(most, math.Abs(x[key]-y[key]))
	}
	return most
}
