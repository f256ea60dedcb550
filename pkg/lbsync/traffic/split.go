package traffic

import (
	"cmp"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// TotalParts is the sum of a region's shares: they are parts of a million.
const TotalParts = 1_000_000

// probeFraction is the part of a region's requests that goes to its held-out members, all together, to learn whether
// they answer again.
const probeFraction = 0.01

// RegionDemand is what the clients of one region send, and which members its edges can use.
type RegionDemand struct {
	Region string
	// Demand is what clients of the region send, in requests per second.
	Demand float64
	// Nearest is the order of overflow after the region itself; a name counts once.
	Nearest []string
	// HeldOut are the members whose requests from this region all fail (see Health).
	HeldOut []fleet.ClusterName
	// Dead are the members of HeldOut to which not even connections can be made.
	Dead []fleet.ClusterName
}

// Capacity is one member's part of the import.
type Capacity struct {
	Cluster fleet.ClusterName
	Region  string
	// Ready is the number of ready endpoints.
	Ready int
	// Scaler is 0 to 1: the part of its capacity that counts.
	Scaler float64
	// Drained is the part, 0 to 1, of the member's requests that go to the others instead.
	Drained float64
}

// Usable says whether the member can take requests: it has a ready endpoint, and is not drained.
func (c Capacity) Usable() bool { return c.Ready > 0 && c.Scaler > 0 && c.kept() > 0 }

// kept is the part of its requests that a member keeps.
func (c Capacity) kept() float64 { return 1 - min(finite(c.Drained), 1) }

// SplitInput is all that one import's shares depend on.
type SplitInput struct {
	Regions []RegionDemand
	Members []Capacity
	// Rate is what one endpoint takes, in requests per second; 0 means that nobody ever fills.
	Rate float64
	// Mode is Waterfall when empty.
	Mode model.Mode
}

// Share is one member's part of a region's requests, in parts of TotalParts.
type Share struct {
	Cluster fleet.ClusterName
	Parts   uint32
}

// RegionShares says where the requests of one region go. The parts sum to TotalParts, or there are none because no
// endpoint is ready anywhere.
type RegionShares struct {
	Region string
	// Shares are sorted by cluster; members without a part are absent.
	Shares []Share
	// HeldOut are the members that get their part only as a probe, sorted.
	HeldOut []fleet.ClusterName
	// Dead are the members to which not even connections can be made, sorted. Where all members of a backend are dead, a
	// rule's other backends get its weight but for a small part that probes it (lbsync.Assign).
	Dead []fleet.ClusterName
	// Overflow is the part of TotalParts that did not fit into the region's first rank with capacity.
	Overflow uint32
}

// PartsOf returns a cluster's parts of TotalParts.
func (r RegionShares) PartsOf(cluster fleet.ClusterName) uint32 {
	k, found := slices.BinarySearchFunc(r.Shares, cluster, func(s Share, c fleet.ClusterName) int { return cmp.Compare(s.Cluster, c) })
	if !found {
		return 0
	}
	return r.Shares[k].Parts
}

// Down says whether all members with a share are dead.
func (r RegionShares) Down() bool {
	return len(r.Shares) > 0 && !slices.ContainsFunc(r.Shares, func(s Share) bool { return !slices.Contains(r.Dead, s.Cluster) })
}

// Split divides each region's demand for one import over the members that can serve it. It is exact and the same
// for every order of its input; the package comment has the arithmetic. Capacity is a wish, not a circuit breaker:
// nothing is ever rejected.
func Split(in SplitInput) []RegionShares {
	levels := drainLevels(in.Members)
	if len(levels) == 1 {
		in.Members = levels[0].members
		return splitLevel(in)
	}
	return average(in, levels)
}

// splitLevel is Split where each member is drained or is not.
func splitLevel(in SplitInput) []RegionShares {
	s := newSolver(in)
	s.place()
	out := make([]RegionShares, len(s.regions))
	for i, r := range s.regions {
		out[i] = s.sharesOf(r)
	}
	return out
}

// solver is the sorted working copy of one SplitInput. Members and regions are indices into it.
type solver struct {
	rate    float64
	members []Capacity
	regions []*region
}

// region is one region while its demand is placed. All amounts that it places are fractions of its demand, so that the
// first request of a region without demand has a place, too.
type region struct {
	name   string
	demand float64 // requests per second, without the probes
	// eligible says by index which members count for the region. probed are the members that get probes only.
	eligible []bool
	probed   []int
	// allHeldOut: every ready member fails, so all of them are eligible. dead are the dead ones of all ready members.
	allHeldOut bool
	dead       []fleet.ClusterName
	ranks      [][]int
	// noCapacity: every eligible member has scaler 0, so every scaler counts as 1 (step 4).
	noCapacity bool
	remaining  float64   // fraction not placed yet
	placed     []float64 // fraction placed, by member
	overflow   float64   // fraction placed after the first rank with capacity
}

func newSolver(in SplitInput) *solver {
	s := &solver{rate: finite(in.Rate), members: slices.Clone(in.Members)}
	slices.SortFunc(s.members, func(a, b Capacity) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Region, b.Region),
			cmp.Compare(a.Ready, b.Ready), cmp.Compare(a.Scaler, b.Scaler))
	})
	for i := range s.members {
		s.members[i].Ready = max(s.members[i].Ready, 0)
		s.members[i].Scaler = min(finite(s.members[i].Scaler), 1)
	}
	last := 0 // the rank of "all others": after the listed ranks of every region
	for _, d := range in.Regions {
		last = max(last, len(s.rankRegions(d, in.Mode)))
	}
	for _, d := range in.Regions {
		r := s.newRegion(d)
		r.ranks = s.ranksOf(r, s.rankRegions(d, in.Mode), last)
		s.regions = append(s.regions, r)
	}
	slices.SortFunc(s.regions, func(a, b *region) int { return cmp.Compare(a.name, b.name) })
	return s
}

// finite limits a number to a range in which no sum or quotient breaks down: from a billionth to a million million.
// NaN, negative and smaller numbers count as 0.
func finite(v float64) float64 {
	if !(v >= 1e-9) { // also NaN
		return 0
	}
	return min(v, 1e12)
}

// rankRegions lists the regions whose members form a rank of their own, nearest first. The region itself is always the
// first, also without members, because all regions fill their rank 1 before any fills its rank 2. Then come the
// regions that its EdgePool lists as nearest, where a member exports the import.
func (s *solver) rankRegions(d RegionDemand, mode model.Mode) []string {
	if mode == model.Spray {
		return nil
	}
	order := []string{d.Region}
	for _, n := range d.Nearest {
		exports := slices.ContainsFunc(s.members, func(m Capacity) bool { return m.Region == n })
		if exports && !slices.Contains(order, n) {
			order = append(order, n)
		}
	}
	return order
}

func (s *solver) newRegion(d RegionDemand) *region {
	r := &region{name: d.Region, demand: finite(d.Demand), remaining: 1, eligible: make([]bool, len(s.members)),
		placed: make([]float64, len(s.members))}
	alive := false
	for i, m := range s.members {
		if m.Ready > 0 && slices.Contains(d.Dead, m.Cluster) {
			r.dead = append(r.dead, m.Cluster)
		}
		r.eligible[i] = m.Ready > 0 && !slices.Contains(d.HeldOut, m.Cluster)
		alive = alive || r.eligible[i]
		if m.Ready > 0 && m.Scaler > 0 && !r.eligible[i] {
			r.probed = append(r.probed, i)
		}
	}
	if !alive { // all members fail, so failures say nothing about any of them
		r.probed, r.allHeldOut = nil, true
		for i, m := range s.members {
			r.eligible[i] = m.Ready > 0
		}
	}
	if len(r.probed) > 0 {
		r.demand *= 1 - probeFraction
	}
	r.noCapacity = true
	for i, m := range s.members {
		if r.eligible[i] && m.Scaler > 0 {
			r.noCapacity = false
		}
	}
	return r
}

// ranksOf sorts the eligible members of r into one rank for each listed region and one for all others, at index last.
func (s *solver) ranksOf(r *region, listed []string, last int) [][]int {
	ranks := make([][]int, last+1)
	for i, m := range s.members {
		if !r.eligible[i] {
			continue
		}
		k := slices.Index(listed, m.Region)
		if k < 0 {
			k = last
		}
		ranks[k] = append(ranks[k], i)
	}
	return ranks
}

// place sets every region's placed and overflow.
func (s *solver) place() {
	var scaled, unscaled []*region
	for _, r := range s.regions {
		if r.noCapacity {
			unscaled = append(unscaled, r)
		} else {
			scaled = append(scaled, r)
		}
	}
	scaler := func(i int) float64 { return s.members[i].Scaler }
	one := func(int) float64 { return 1 }
	if s.rate <= 0 {
		for _, r := range scaled {
			s.placeWithoutRate(r, scaler)
		}
		for _, r := range unscaled {
			s.placeWithoutRate(r, one)
		}
		return
	}
	// Every member that is eligible for a region without capacity has scaler 0, so no other region fills it: the two
	// groups do not compete.
	s.waterfill(scaled, scaler)
	s.waterfill(unscaled, one)
}

// placeWithoutRate is step 3. At a level u only members with a scaler above u count and the first rank that has one
// takes all, by ready endpoints; the result is the average over u.
func (s *solver) placeWithoutRate(r *region, scaler func(int) float64) {
	var levels []float64
	for i := range s.members {
		if r.eligible[i] && scaler(i) > 0 {
			levels = append(levels, scaler(i))
		}
	}
	slices.Sort(levels)
	levels = slices.Compact(levels)
	below := 0.0
	for _, level := range levels {
		weight := (level - below) / levels[len(levels)-1]
		s.placeAtLevel(r, weight, func(i int) bool { return scaler(i) >= level })
		below = level
	}
}

func (s *solver) placeAtLevel(r *region, weight float64, counts func(int) bool) {
	for _, rank := range r.ranks {
		ready := 0
		for _, i := range rank {
			if counts(i) {
				ready += s.members[i].Ready
			}
		}
		if ready == 0 {
			continue
		}
		for _, i := range rank {
			if counts(i) {
				r.placed[i] += weight * float64(s.members[i].Ready) / float64(ready)
			}
		}
		return
	}
}

// sharesOf adds the probes to what r placed and rounds to parts of TotalParts.
func (s *solver) sharesOf(r *region) RegionShares {
	out := RegionShares{Region: r.name, Dead: slices.Compact(r.dead), Overflow: uint32(r.overflow*TotalParts + 0.5)}
	fractions := slices.Clone(r.placed)
	if r.allHeldOut {
		s.tryAll(r, fractions)
	}
	if len(r.probed) > 0 {
		for i := range fractions {
			fractions[i] *= 1 - probeFraction
		}
		for _, i := range r.probed {
			fractions[i] = probeFraction / float64(len(r.probed))
			out.HeldOut = append(out.HeldOut, s.members[i].Cluster)
		}
	}
	for i, n := range RoundToParts(fractions) {
		if n > 0 {
			out.Shares = append(out.Shares, Share{Cluster: s.members[i].Cluster, Parts: n})
		}
	}
	return out
}

// tryAll gives every member some requests while all of them fail, also the members that the ranks leave without a
// share: the first that answers is no longer held out and gets all. Where all are dead, hardly anything is sent, and all
// are tried alike.
func (s *solver) tryAll(r *region, fractions []float64) {
	ready, idle, allDead := 0, 0, true
	for i, m := range s.members {
		if !r.eligible[i] {
			continue
		}
		ready += m.Ready
		allDead = allDead && slices.Contains(r.dead, m.Cluster)
		if fractions[i] == 0 {
			idle++
		}
	}
	for i, m := range s.members {
		switch {
		case !r.eligible[i]:
		case allDead:
			fractions[i] = float64(m.Ready) / float64(ready)
		case idle > 0 && fractions[i] == 0:
			fractions[i] = probeFraction / float64(idle)
		case idle > 0:
			fractions[i] *= 1 - probeFraction
		}
	}
}

// RoundToParts rounds fractions, in proportion, to integers that sum to TotalParts, by largest remainder; earlier ones
// win ties. Where all fractions are 0 all parts are.
func RoundToParts(fractions []float64) []uint32 {
	sum := 0.0
	for _, f := range fractions {
		sum += f
	}
	parts := make([]uint32, len(fractions))
	if sum <= 0 {
		return parts
	}
	remainders := make([]float64, len(fractions))
	order := make([]int, len(fractions))
	missing := TotalParts
	for i, f := range fractions {
		exact := f / sum * TotalParts
		parts[i] = uint32(exact)
		remainders[i] = exact - float64(parts[i])
		order[i] = i
		missing -= int(parts[i])
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, i := range order[:max(missing, 0)] {
		parts[i]++
	}
	return parts
}
