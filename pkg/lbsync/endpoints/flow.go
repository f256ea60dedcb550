package endpoints

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

const (
	// moveInterval is how often the shares of one import move at most for what clients send. What must move (a dead
	// or drained member, a member that fails) does not wait.
	moveInterval = time.Second
)

// flow is what is known of one backend in use: what clients send, who fails, and the shares in force.
type flow struct {
	backend  fleet.Backend
	policy   model.ImportPolicy
	users    map[string]bool // keys of the assignments that use it
	regions  map[string]*regionFlow
	shares   []traffic.RegionShares // in force, by region
	members  []traffic.Capacity     // that the shares were last divided over
	moved    time.Time              // when they last moved
	waiting  time.Time              // since when a small move has been worth it; zero: none is
	due      bool                   // something was heard since the last division
	overflow overflow
}

// regionFlow is the part of one region's edges.
type regionFlow struct {
	demand traffic.Demand
	health traffic.Health
	// learned is when the region's shares were learned from an edge; zero: they are the hub's own.
	learned time.Time
	// counted: since then all its edges have reported what they count themselves.
	counted bool
	// heard: a load report came before anything was learned, so that there is nothing left to learn.
	heard bool
	// carry is the fraction of a request that a weighted rule's part left over, by edge.
	carry map[string]float64
	// open are the requests that had not ended at the edge's last report, by edge and member. An edge that has reported
	// nothing yet is not there.
	open map[string]map[fleet.ClusterName]uint64
}

// division is what the shares of a flow are made from.
type division struct {
	now     time.Time
	members []traffic.Capacity
	regions []regionView
}

// regionView is what a region's edges see.
type regionView struct {
	name    string
	nearest []string
	edges   []string // connected
}

func newFlow(backend fleet.Backend) *flow {
	return &flow{backend: backend, policy: model.ImportPolicy{Backend: backend, Mode: model.Waterfall},
		users: map[string]bool{}, regions: map[string]*regionFlow{}}
}

func (f *flow) region(name string) *regionFlow {
	if f.regions[name] == nil {
		f.regions[name] = &regionFlow{carry: map[string]float64{}, open: map[string]map[fleet.ClusterName]uint64{}}
	}
	return f.regions[name]
}

// sharesOf gives the shares in force in a region.
func (f *flow) sharesOf(region string) traffic.RegionShares {
	k := slices.IndexFunc(f.shares, func(r traffic.RegionShares) bool { return r.Region == region })
	if k < 0 {
		return traffic.RegionShares{Region: region}
	}
	return f.shares[k]
}

// has says whether a cluster has a part of the flow's backend: edges may name any.
func (f *flow) has(cluster fleet.ClusterName) bool {
	return slices.ContainsFunc(f.members, func(m traffic.Capacity) bool { return m.Cluster == cluster })
}

// learn takes over the shares that an edge of a region holds, unless the hub has its own or learned them already. It
// says whether the shares in force changed.
func (f *flow) learn(held traffic.RegionShares, now time.Time) (changed bool) {
	r := f.region(held.Region)
	if r.heard || !r.learned.IsZero() {
		return false
	}
	r.learned, r.counted, f.due = now, false, true
	for _, c := range slices.Concat(held.HeldOut, held.Dead) {
		if f.has(c) {
			r.health.HoldOut(c, slices.Contains(held.Dead, c), now)
		}
	}
	k := slices.IndexFunc(f.shares, func(s traffic.RegionShares) bool { return s.Region == held.Region })
	if k < 0 {
		return false
	}
	held = withoutLost(held, f.members)
	if len(held.Shares) == 0 || sameShares(f.shares[k], held) {
		return false
	}
	f.shares = slices.Clone(f.shares)
	f.shares[k] = held
	return true
}

// divide brings the shares up to date and says whether they changed. Counting noise moves nothing (traffic.Move); what
// was learned stays until every edge of its region has reported, but for members that can take nothing any more.
func (f *flow) divide(d division) (changed bool) {
	in := traffic.SplitInput{Members: d.members, Rate: f.policy.Rate, Mode: f.policy.Mode}
	move := traffic.Move{Old: f.shares, Demand: map[string]float64{}, Members: d.members}
	settled := true
	for _, v := range d.regions {
		r := f.region(v.name)
		settled = settled && (r.learned.IsZero() || r.demand.Settled(v.edges, r.learned, d.now))
		move.Learned = move.Learned || !r.learned.IsZero()
		move.Demand[v.name] = r.demand.Rate()
		in.Regions = append(in.Regions, traffic.RegionDemand{Region: v.name, Demand: r.demand.Rate(), Nearest: v.nearest,
			HeldOut: r.health.HeldOut(), Dead: r.health.Dead()})
	}
	move.New = traffic.Split(in)
	if !settled {
		move.New = f.keepLearned(move.New, d.members)
	}
	others := !slices.Equal(f.members, d.members)
	f.members, f.due = d.members, !settled
	if settled {
		f.overflow.note(move, d.now)
		for _, r := range f.regions {
			r.counted = true
		}
	}
	if !others && f.holdBack(move, d.now) || slices.EqualFunc(f.shares, move.New, sameShares) {
		return false
	}
	f.shares, f.moved, f.waiting = move.New, d.now, time.Time{}
	if settled {
		for _, r := range f.regions {
			r.heard = r.heard || !r.learned.IsZero()
			r.learned = time.Time{}
		}
	}
	return true
}

// holdBack says that a move is not worth publishing, or is small and may still be noise.
func (f *flow) holdBack(move traffic.Move, now time.Time) bool {
	switch {
	case !move.Significant():
		f.waiting = time.Time{}
		return true
	case !move.Small():
		return false
	case f.waiting.IsZero():
		f.waiting = now
	}
	f.due = true
	return now.Sub(f.waiting) < traffic.SmallMoveDelay
}

// keepLearned replaces fresh shares by the learned ones in force, where there are.
func (f *flow) keepLearned(fresh []traffic.RegionShares, members []traffic.Capacity) []traffic.RegionShares {
	out := slices.Clone(fresh)
	for i, s := range out {
		if f.region(s.Region).learned.IsZero() {
			continue
		}
		if kept := withoutLost(f.sharesOf(s.Region), members); len(kept.Shares) > 0 {
			out[i] = kept
		}
	}
	return out
}

// withoutLost takes the part of members that can take nothing any more (no ready endpoint, or drained) and gives it to
// the others in proportion; a probe of a held-out member that is lost goes with it.
func withoutLost(r traffic.RegionShares, members []traffic.Capacity) traffic.RegionShares {
	able := func(c fleet.ClusterName) bool {
		return slices.ContainsFunc(members, func(m traffic.Capacity) bool { return m.Cluster == c && m.Ready > 0 && m.Scaler > 0 })
	}
	unable := func(c fleet.ClusterName) bool { return !able(c) }
	out := traffic.RegionShares{Region: r.Region, Overflow: r.Overflow,
		HeldOut: slices.DeleteFunc(slices.Clone(r.HeldOut), unable), Dead: slices.DeleteFunc(slices.Clone(r.Dead), unable)}
	left := uint64(0)
	for _, s := range r.Shares {
		if able(s.Cluster) {
			out.Shares = append(out.Shares, s)
			left += uint64(s.Parts)
		}
	}
	if len(out.Shares) == len(r.Shares) || left == 0 {
		return out
	}
	rest := uint64(traffic.TotalParts)
	for i := range out.Shares {
		out.Shares[i].Parts = uint32(uint64(out.Shares[i].Parts) * traffic.TotalParts / left)
		rest -= uint64(out.Shares[i].Parts)
	}
	out.Shares[0].Parts += uint32(rest)
	return out
}

// sameShares ignores Overflow, which no edge sees.
func sameShares(a, b traffic.RegionShares) bool {
	return a.Region == b.Region && slices.Equal(a.Shares, b.Shares) && slices.Equal(a.HeldOut, b.HeldOut) && slices.Equal(a.Dead, b.Dead)
}
