package traffic

// fullTolerance is the free capacity, relative to the whole, at which a member counts as full. Without it, rounding
// errors would move whole shares.
const fullTolerance = 1e-9

// bucket is one member during a waterfill: its capacity and what is free of it, in requests per second.
type bucket struct{ capacity, free float64 }

func (b bucket) full() bool { return b.free <= fullTolerance*b.capacity }

// waterfill is steps 1 and 2: every region fills its ranks one after the other, all regions the same rank together.
// scaler returns the fraction of each member's capacity that counts.
func (s *solver) waterfill(regions []*region, scaler func(int) float64) {
	if len(regions) == 0 {
		return
	}
	buckets := s.buckets(regions, scaler)
	ranks := 0
	for _, r := range regions {
		ranks = max(ranks, len(r.ranks))
	}
	for k := range ranks {
		fillRank(regions, buckets, k)
	}
	for _, r := range regions {
		r.spreadRemaining(buckets)
	}
}

// buckets returns each member's capacity. When all demand exceeds the capacity that is eligible, every capacity is
// multiplied by the same factor, so that all members are overfilled alike and nearness still holds (step 2).
func (s *solver) buckets(regions []*region, scaler func(int) float64) []bucket {
	buckets := make([]bucket, len(s.members))
	demand, usable := 0.0, 0.0
	for _, r := range regions {
		demand += r.demand
	}
	for i, m := range s.members {
		eligible := false
		for _, r := range regions {
			eligible = eligible || r.eligible[i]
		}
		if eligible {
			buckets[i].capacity = float64(m.Ready) * s.rate * scaler(i)
			usable += buckets[i].capacity
		}
	}
	factor := 1.0
	if demand > usable && usable > 0 {
		factor = demand / usable
	}
	for i := range buckets {
		buckets[i].capacity *= factor
		buckets[i].free = buckets[i].capacity
	}
	return buckets
}

// rankFill is one region that fills one rank.
type rankFill struct {
	region       *region
	members      []int
	rate         float64 // fraction of the region's demand per unit of time: what was not placed when the rank began
	openCapacity float64 // sum of the capacities of the members that are not full
}

// fillRank lets all regions fill their rank k from time 0 to 1. Every rate is constant between two moments at which a
// member becomes full, so the run is a sequence of linear steps, and each but the last fills a member.
func fillRank(regions []*region, buckets []bucket, k int) {
	var fills []*rankFill
	for _, r := range regions {
		if k < len(r.ranks) && r.remaining > 0 {
			fills = append(fills, &rankFill{region: r, members: r.ranks[k], rate: r.remaining})
		}
	}
	now := 0.0
	for steps := 0; now < 1 && steps <= len(buckets); steps++ {
		inflow := make([]float64, len(buckets))
		flows := false
		for _, f := range fills {
			f.sumOpenCapacity(buckets)
			flows = flows || f.openCapacity > 0
			f.each(buckets, func(i int, fraction float64) { inflow[i] += fraction * f.region.demand })
		}
		if !flows {
			return
		}
		step := 1 - now
		for i, in := range inflow {
			if in > 0 {
				step = min(step, buckets[i].free/in)
			}
		}
		for _, f := range fills {
			f.advance(buckets, step, k)
		}
		for i, in := range inflow {
			buckets[i].free -= in * step
		}
		now += step
	}
	for _, f := range fills {
		if f.sumOpenCapacity(buckets); f.openCapacity > 0 {
			f.region.remaining = 0 // a member is open at time 1: all was placed, whatever the rounded sums say
		}
	}
}

func (f *rankFill) sumOpenCapacity(buckets []bucket) {
	f.openCapacity = 0
	for _, i := range f.members {
		if !buckets[i].full() {
			f.openCapacity += buckets[i].capacity
		}
	}
}

// each calls yield with every member that is not full, and the fraction of the region's demand that it receives per
// unit of time.
func (f *rankFill) each(buckets []bucket, yield func(i int, fraction float64)) {
	for _, i := range f.members {
		if f.openCapacity > 0 && !buckets[i].full() {
			yield(i, f.rate*buckets[i].capacity/f.openCapacity)
		}
	}
}

func (f *rankFill) advance(buckets []bucket, step float64, k int) {
	if f.openCapacity == 0 {
		return
	}
	r := f.region
	f.each(buckets, func(i int, fraction float64) { r.placed[i] += fraction * step })
	r.remaining = max(r.remaining-f.rate*step, 0)
	if k > r.firstRankWithCapacity(buckets) {
		r.overflow += f.rate * step
	}
}

// firstRankWithCapacity is the first rank that has any capacity, full or not.
func (r *region) firstRankWithCapacity(buckets []bucket) int {
	for k, rank := range r.ranks {
		for _, i := range rank {
			if buckets[i].capacity > 0 {
				return k
			}
		}
	}
	return len(r.ranks)
}

// spreadRemaining places what did not fit, because some members are held out for the region, in proportion to capacity.
func (r *region) spreadRemaining(buckets []bucket) {
	total := 0.0
	for i := range buckets {
		if r.eligible[i] {
			total += buckets[i].capacity
		}
	}
	if r.remaining <= 0 || total <= 0 {
		return
	}
	for i := range buckets {
		if r.eligible[i] {
			r.placed[i] += r.remaining * buckets[i].capacity / total
		}
	}
	r.remaining = 0
}
