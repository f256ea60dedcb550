package lbsync

// fullAt is the room, relative to what a member had, at which it counts as full. Without it, rounding dust would
// move whole shares.
const fullAt = 1e-9

// vessel is a member while the regions pour: its capacity and the room left, in requests per second.
type vessel struct{ capacity, room float64 }

func (v vessel) full() bool { return v.room <= fullAt*v.capacity }

// pour is steps 1 and 2: every region fills its ranks one after the other, all regions at the same rank together.
// scaler gives what part of each member counts.
func (w *world) pour(regions []*region, scaler func(int) float64) {
	if len(regions) == 0 {
		return
	}
	vessels := w.vesselsFor(regions, scaler)
	ranks := 0
	for _, r := range regions {
		ranks = max(ranks, len(r.ranks))
	}
	for k := range ranks {
		pourRank(regions, vessels, k)
	}
	for _, r := range regions {
		r.spreadRest(vessels)
	}
}

// vesselsFor gives each member its capacity; when all demand is more than what the regions can see, everything
// grows by the same factor, so that all are overfilled alike and nearness still holds (step 2).
func (w *world) vesselsFor(regions []*region, scaler func(int) float64) []vessel {
	vessels := make([]vessel, len(w.members))
	demand, usable := 0.0, 0.0
	for _, r := range regions {
		demand += r.demand
	}
	for i, m := range w.members {
		seen := false
		for _, r := range regions {
			seen = seen || r.sees[i]
		}
		if seen {
			vessels[i].capacity = float64(m.Ready) * w.rate * scaler(i)
			usable += vessels[i].capacity
		}
	}
	grow := 1.0
	if demand > usable && usable > 0 {
		grow = demand / usable
	}
	for i := range vessels {
		vessels[i].capacity *= grow
		vessels[i].room = vessels[i].capacity
	}
	return vessels
}

// stream is one region pouring over one rank: speed is the fraction it had left when the rank began.
type stream struct {
	region *region
	rank   []int
	speed  float64
	weight float64 // sum of the capacities of the members that are open
}

// pourRank lets all regions pour over their rank k from time 0 to 1. Between two moments at which a member fills,
// every speed is constant, so the run is a sequence of straight pieces: each but the last fills a member.
func pourRank(regions []*region, vessels []vessel, k int) {
	var streams []*stream
	for _, r := range regions {
		if k < len(r.ranks) && r.left > 0 {
			streams = append(streams, &stream{region: r, rank: r.ranks[k], speed: r.left})
		}
	}
	now := 0.0
	for piece := 0; now < 1 && piece <= len(vessels); piece++ {
		inflow := make([]float64, len(vessels))
		flowing := false
		for _, s := range streams {
			s.open(vessels)
			flowing = flowing || s.weight > 0
			s.each(vessels, func(i int, fraction float64) { inflow[i] += fraction * s.region.demand })
		}
		if !flowing {
			return
		}
		step := 1 - now
		for i, in := range inflow {
			if in > 0 {
				step = min(step, vessels[i].room/in)
			}
		}
		for _, s := range streams {
			s.advance(vessels, step, k)
		}
		for i, in := range inflow {
			vessels[i].room -= in * step
		}
		now += step
	}
	for _, s := range streams {
		if s.open(vessels); s.weight > 0 {
			s.region.left = 0 // an open member at time 1: it has placed exactly all, whatever the sums say
		}
	}
}

// open sums the capacities that still have room.
func (s *stream) open(vessels []vessel) {
	s.weight = 0
	for _, i := range s.rank {
		if !vessels[i].full() {
			s.weight += vessels[i].capacity
		}
	}
}

// each calls f with every open member and the fraction of the region's demand it receives per unit of time.
func (s *stream) each(vessels []vessel, f func(i int, fraction float64)) {
	for _, i := range s.rank {
		if s.weight > 0 && !vessels[i].full() {
			f(i, s.speed*vessels[i].capacity/s.weight)
		}
	}
}

func (s *stream) advance(vessels []vessel, step float64, k int) {
	if s.weight == 0 {
		return
	}
	r := s.region
	s.each(vessels, func(i int, fraction float64) { r.placed[i] += fraction * step })
	r.left = max(r.left-s.speed*step, 0)
	if k > r.firstRank(vessels) {
		r.overflow += s.speed * step
	}
}

// firstRank is the first rank that has any capacity, full or not.
func (r *region) firstRank(vessels []vessel) int {
	for k, rank := range r.ranks {
		for _, i := range rank {
			if vessels[i].capacity > 0 {
				return k
			}
		}
	}
	return len(r.ranks)
}

// spreadRest places what found no room, because the region does not see every member, in proportion to capacity.
func (r *region) spreadRest(vessels []vessel) {
	total := 0.0
	for i := range vessels {
		if r.sees[i] {
			total += vessels[i].capacity
		}
	}
	if r.left <= 0 || total <= 0 {
		return
	}
	for i := range vessels {
		if r.sees[i] {
			r.placed[i] += r.left * vessels[i].capacity / total
		}
	}
	r.left = 0
}
