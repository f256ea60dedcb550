package lbsync

import (
	"cmp"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Whole is the sum of a region's shares: they are parts of a million.
const Whole = 1_000_000

// probeShare is the part of a region's requests that goes to its held-out members, all together, to learn whether
// they answer again.
const probeShare = 0.01

// RegionDemand is what one region wants and sees.
type RegionDemand struct {
	Region string
	// Demand is what clients of the region send, in requests per second.
	Demand float64
	// Nearest is the order of overflow after the region itself; a name counts once.
	Nearest []string
	// HeldOut are the members whose requests from this region all fail (see Health).
	HeldOut []fleet.ClusterName
	// Dead are those of HeldOut to which not even connections can be made.
	Dead []fleet.ClusterName
}

// Capacity is one member's part of the import.
type Capacity struct {
	Cluster fleet.ClusterName
	Region  string
	// Ready is the number of ready endpoints.
	Ready int
	// Scaler is 0 (drained) to 1.
	Scaler float64
}

// SplitInput is all that one import's shares depend on.
type SplitInput struct {
	Regions []RegionDemand
	Members []Capacity
	// Rate is what one endpoint takes, in requests per second; 0 means that nobody ever fills.
	Rate float64
	// Mode is Waterfall when empty.
	Mode model.Mode
}

// Share is one member's part of a region's requests, in parts of Whole.
type Share struct {
	Cluster fleet.ClusterName
	Parts   uint32
}

// RegionShares says where the requests of one region go: the parts sum to Whole, or there are none because no
// endpoint is ready anywhere.
type RegionShares struct {
	Region string
	// Shares are sorted by cluster; members without a part are absent.
	Shares []Share
	// HeldOut are the members that get their part only as a probe, sorted.
	HeldOut []fleet.ClusterName
	// Dead are the members to which not even connections can be made, sorted. Where all of a backend's are, a rule's
	// other backends get its weight but for a small part that tries it (Assign).
	Dead []fleet.ClusterName
	// Overflow is the part of Whole that did not fit into the region's first rank with capacity.
	Overflow uint32
}

// Down says that all who have a part are dead.
func (r RegionShares) Down() bool {
	return len(r.Shares) > 0 && !slices.ContainsFunc(r.Shares, func(s Share) bool { return !slices.Contains(r.Dead, s.Cluster) })
}

// Split divides each region's demand for one import over the members that can serve it. It is exact and the same
// for every order of its input; the package comment has the arithmetic. Capacity is a wish, not a circuit breaker:
// nothing is ever rejected.
func Split(in SplitInput) []RegionShares {
	w := readWorld(in)
	w.place()
	out := make([]RegionShares, len(w.regions))
	for i, r := range w.regions {
		out[i] = w.sharesOf(r)
	}
	return out
}

// world is the sorted working copy of one SplitInput. Members and regions are indices into it.
type world struct {
	rate    float64
	members []Capacity
	regions []*region
}

// region is one region while its demand is placed. Everything it places is a fraction of its demand, so that a
// region without demand has a place for its first request too.
type region struct {
	name   string
	demand float64 // requests per second, probes already taken off
	// sees says which members count for it, by index; probed are those held out. failing: all that it sees are
	// held out; dead are those of all who are ready.
	sees    []bool
	probed  []int
	failing bool
	dead    []fleet.ClusterName
	ranks   [][]int
	// blind: no member that it sees has capacity, so every scaler counts as 1 for it (step 4).
	blind    bool
	left     float64   // fraction not yet placed
	placed   []float64 // fraction placed, by member
	overflow float64   // fraction placed after the first rank with capacity
}

func readWorld(in SplitInput) *world {
	w := &world{rate: finite(in.Rate), members: slices.Clone(in.Members)}
	slices.SortFunc(w.members, func(a, b Capacity) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Region, b.Region),
			cmp.Compare(a.Ready, b.Ready), cmp.Compare(a.Scaler, b.Scaler))
	})
	for i := range w.members {
		w.members[i].Ready = max(w.members[i].Ready, 0)
		w.members[i].Scaler = min(finite(w.members[i].Scaler), 1)
	}
	last := 0 // the rank of "all others": after every region's named ones
	for _, d := range in.Regions {
		last = max(last, len(w.named(d, in.Mode)))
	}
	for _, d := range in.Regions {
		r := w.readRegion(d)
		r.ranks = w.ranksOf(r, w.named(d, in.Mode), last)
		w.regions = append(w.regions, r)
	}
	slices.SortFunc(w.regions, func(a, b *region) int { return cmp.Compare(a.name, b.name) })
	return w
}

// finite keeps numbers between a billionth and a million million, in whose range no sum or quotient breaks down. What is
// no number, negative or smaller counts as 0.
func finite(v float64) float64 {
	if !(v >= 1e-9) { // also NaN
		return 0
	}
	return min(v, 1e12)
}

// named lists the regions whose members form a rank of their own, nearest first: the region itself, also when it
// has no member, because all regions place on their rank 1 before any places on its rank 2; then those its EdgePool
// names, where somebody exports the import.
func (w *world) named(d RegionDemand, mode model.Mode) []string {
	if mode == model.Spray {
		return nil
	}
	order := []string{d.Region}
	for _, n := range d.Nearest {
		exports := slices.ContainsFunc(w.members, func(m Capacity) bool { return m.Region == n })
		if exports && !slices.Contains(order, n) {
			order = append(order, n)
		}
	}
	return order
}

func (w *world) readRegion(d RegionDemand) *region {
	r := &region{name: d.Region, demand: finite(d.Demand), left: 1, sees: make([]bool, len(w.members)),
		placed: make([]float64, len(w.members))}
	alive := false
	for i, m := range w.members {
		if m.Ready > 0 && slices.Contains(d.Dead, m.Cluster) {
			r.dead = append(r.dead, m.Cluster)
		}
		r.sees[i] = m.Ready > 0 && !slices.Contains(d.HeldOut, m.Cluster)
		alive = alive || r.sees[i]
		if m.Ready > 0 && m.Scaler > 0 && !r.sees[i] {
			r.probed = append(r.probed, i)
		}
	}
	if !alive { // all of them fail, so failing tells nothing
		r.probed, r.failing = nil, true
		for i, m := range w.members {
			r.sees[i] = m.Ready > 0
		}
	}
	if len(r.probed) > 0 {
		r.demand *= 1 - probeShare
	}
	r.blind = true
	for i, m := range w.members {
		if r.sees[i] && m.Scaler > 0 {
			r.blind = false
		}
	}
	return r
}

// ranksOf sorts the members that r sees into the ranks of its named regions and one for all others, at index last.
func (w *world) ranksOf(r *region, named []string, last int) [][]int {
	ranks := make([][]int, last+1)
	for i, m := range w.members {
		if !r.sees[i] {
			continue
		}
		k := slices.Index(named, m.Region)
		if k < 0 {
			k = last
		}
		ranks[k] = append(ranks[k], i)
	}
	return ranks
}

// place fills every region's placed and overflow.
func (w *world) place() {
	var sighted, blind []*region
	for _, r := range w.regions {
		if r.blind {
			blind = append(blind, r)
		} else {
			sighted = append(sighted, r)
		}
	}
	scaler := func(i int) float64 { return w.members[i].Scaler }
	one := func(int) float64 { return 1 }
	if w.rate <= 0 {
		for _, r := range sighted {
			w.placeByLevel(r, scaler)
		}
		for _, r := range blind {
			w.placeByLevel(r, one)
		}
		return
	}
	// The members a blind region sees have scaler 0, so no sighted region fills them: two worlds apart.
	w.pour(sighted, scaler)
	w.pour(blind, one)
}

// placeByLevel is step 3, an import without a rate: at a level u only members with a scaler above u count and the
// first rank that has one takes all, by ready endpoints; the result is the average over u.
func (w *world) placeByLevel(r *region, scaler func(int) float64) {
	var levels []float64
	for i := range w.members {
		if r.sees[i] && scaler(i) > 0 {
			levels = append(levels, scaler(i))
		}
	}
	slices.Sort(levels)
	levels = slices.Compact(levels)
	below := 0.0
	for _, level := range levels {
		weight := (level - below) / levels[len(levels)-1]
		w.placeAtLevel(r, weight, func(i int) bool { return scaler(i) >= level })
		below = level
	}
}

func (w *world) placeAtLevel(r *region, weight float64, counts func(int) bool) {
	for _, rank := range r.ranks {
		ready := 0
		for _, i := range rank {
			if counts(i) {
				ready += w.members[i].Ready
			}
		}
		if ready == 0 {
			continue
		}
		for _, i := range rank {
			if counts(i) {
				r.placed[i] += weight * float64(w.members[i].Ready) / float64(ready)
			}
		}
		return
	}
}

// sharesOf adds the probes to what r placed and rounds to parts of Whole.
func (w *world) sharesOf(r *region) RegionShares {
	out := RegionShares{Region: r.name, Dead: slices.Compact(r.dead), Overflow: uint32(r.overflow*Whole + 0.5)}
	parts := slices.Clone(r.placed)
	if r.failing {
		w.tryAll(r, parts)
	}
	if len(r.probed) > 0 {
		for i := range parts {
			parts[i] *= 1 - probeShare
		}
		for _, i := range r.probed {
			parts[i] = probeShare / float64(len(r.probed))
			out.HeldOut = append(out.HeldOut, w.members[i].Cluster)
		}
	}
	for i, n := range wholeParts(parts) {
		if n > 0 {
			out.Shares = append(out.Shares, Share{Cluster: w.members[i].Cluster, Parts: n})
		}
	}
	return out
}

// tryAll sees to it that each member is tried while all of them fail, also those that the ranks leave without a part:
// the first that answers has all. Where all are dead, hardly anything is sent, and all are tried alike.
func (w *world) tryAll(r *region, parts []float64) {
	ready, idle, down := 0, 0, true
	for i, m := range w.members {
		if !r.sees[i] {
			continue
		}
		ready += m.Ready
		down = down && slices.Contains(r.dead, m.Cluster)
		if parts[i] == 0 {
			idle++
		}
	}
	for i, m := range w.members {
		switch {
		case !r.sees[i]:
		case down:
			parts[i] = float64(m.Ready) / float64(ready)
		case idle > 0 && parts[i] == 0:
			parts[i] = probeShare / float64(idle)
		case idle > 0:
			parts[i] *= 1 - probeShare
		}
	}
}

// wholeParts rounds fractions to parts that sum to Whole, by largest remainder; earlier ones win ties. All zero
// stays all zero.
func wholeParts(fractions []float64) []uint32 {
	sum := 0.0
	for _, f := range fractions {
		sum += f
	}
	parts := make([]uint32, len(fractions))
	if sum <= 0 {
		return parts
	}
	rest := make([]float64, len(fractions))
	order := make([]int, len(fractions))
	missing := Whole
	for i, f := range fractions {
		exact := f / sum * Whole
		parts[i] = uint32(exact)
		rest[i] = exact - float64(parts[i])
		order[i] = i
		missing -= int(parts[i])
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for _, i := range order[:max(missing, 0)] {
		parts[i]++
	}
	return parts
}
