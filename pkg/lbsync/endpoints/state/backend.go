package state

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// moveInterval is the least time between two moves of one import's shares that only follow demand. A move that must be
// made (a member is dead, drained or fails) does not wait.
const moveInterval = time.Second

// backendState is one backend in use: what clients send, which members fail, and the shares in force.
type backendState struct {
	backend    fleet.Backend
	policy     model.ImportPolicy
	users      map[string]bool // keys of the assignments that use it
	regions    map[string]*regionState
	shares     []traffic.RegionShares // in force, by region
	ready      int                    // endpoints of all members
	members    []traffic.Capacity     // that the shares were last divided over
	pace       traffic.Pace           // of the members' parts
	movedAt    time.Time              // when the shares last moved; zero: they may move at once
	smallSince time.Time              // since when a small move is significant; zero: none is
	largeAt    time.Time              // when the shares last moved without waiting
	resplitDue bool                   // something changed since the last division
	said       *Decision              // what other replicas were told last
	overflow   overflow
}

// regionState is what the edges of one region reported of a backend.
type regionState struct {
	demand traffic.Demand
	health traffic.Health
	// learned are the region's shares that its edges held when the hub started, learnedAt is when the first of them said
	// so; zero: the shares are the hub's own.
	learned   traffic.RegionShares
	learnedAt time.Time
	// word is what another replica decided, and was adopted last; nil: none was.
	word *RegionDecision
	// follows: the replica that said it is heard.
	follows bool
	// settled: since learnedAt all edges of the region have reported for long enough.
	settled bool
	// fractions of a request that a weighted rule's part left over, by edge.
	fractions map[string]float64
	// open are the requests that had not ended at the edge's last report, by edge and member. An edge that has reported
	// nothing yet is absent.
	open map[string]map[fleet.ClusterName]uint64
}

// splitContext is what the shares of a backend are made from, beside its own state.
type splitContext struct {
	now     time.Time
	members []traffic.Capacity
	regions []region
	words   map[string]*RegionDecision // that another replica decided, by region
	ready   bool                       // other replicas may rely on this one
}

func newBackendState(backend fleet.Backend) *backendState {
	return &backendState{backend: backend, policy: model.ImportPolicy{Backend: backend, Mode: model.Waterfall},
		users: map[string]bool{}, regions: map[string]*regionState{}}
}

func (b *backendState) region(name string) *regionState {
	if b.regions[name] == nil {
		b.regions[name] = &regionState{fractions: map[string]float64{}, open: map[string]map[fleet.ClusterName]uint64{}}
	}
	return b.regions[name]
}

// sharesOf returns the shares in force in a region.
func (b *backendState) sharesOf(region string) traffic.RegionShares {
	k := slices.IndexFunc(b.shares, func(r traffic.RegionShares) bool { return r.Region == region })
	if k < 0 {
		return traffic.RegionShares{Region: region}
	}
	return b.shares[k]
}

// hasMember says whether a cluster has a part of the backend: edges may name any cluster.
func (b *backendState) hasMember(cluster fleet.ClusterName) bool {
	return slices.ContainsFunc(b.members, func(m traffic.Capacity) bool { return m.Cluster == cluster })
}

// resplit divides the demand again and says whether the shares changed. Counting noise moves nothing (traffic.Move).
// Learned shares stay until every edge of their region has reported, except for members that can take nothing any more.
func (b *backendState) resplit(c splitContext) (changed bool) {
	in := traffic.SplitInput{Members: c.members, Rate: b.policy.Rate, Mode: b.policy.Mode}
	move := traffic.Move{Old: b.shares, Demand: map[string]float64{}, Members: c.members}
	settled := true
	for _, v := range c.regions {
		r := b.region(v.name)
		r.adopt(c.words[v.name], v.edges, c)
		settled = settled && (c.words[v.name] != nil || r.learnedAt.IsZero() || r.demand.Settled(v.edges, r.learnedAt, c.now))
		move.Learned = move.Learned || !r.learnedAt.IsZero()
		move.Demand[v.name] = r.demand.Rate()
		in.Regions = append(in.Regions, traffic.RegionDemand{Region: v.name, Demand: r.demand.Rate(), Nearest: v.nearest,
			HeldOut: r.health.HeldOut(), Dead: r.health.Dead()})
	}
	move.New = traffic.Split(in)
	if !settled {
		move.New = b.keepLearned(move.New, c.members)
	}
	takeWords(move.New, c)
	membersChanged := !slices.Equal(b.members, c.members)
	b.members, b.resplitDue = c.members, !settled
	if settled {
		b.overflow.observe(move, c.now)
		for _, r := range b.regions {
			r.settled = true
		}
	}
	own := move
	own.New = b.unmoved(move.New, func(region string) bool { return c.words[region] != nil })
	deferred := !membersChanged && b.deferMove(own, c.now)
	if deferred && len(c.words) == 0 {
		return false
	}
	if deferred { // what another replica decided does not wait
		move.New = b.unmoved(move.New, func(region string) bool { return c.words[region] == nil })
	}
	if slices.EqualFunc(b.shares, move.New, sameShares) {
		return false
	}
	if !move.Small() {
		b.largeAt = c.now
	}
	if b.shares, b.movedAt = move.New, c.now; !deferred {
		b.smallSince = time.Time{}
	}
	if settled && len(c.words) == 0 {
		for _, r := range b.regions {
			r.learnedAt = time.Time{}
		}
	}
	return true
}

// unmoved is fresh shares with those in force in some regions.
func (b *backendState) unmoved(fresh []traffic.RegionShares, in func(region string) bool) []traffic.RegionShares {
	out := slices.Clone(fresh)
	for i, s := range out {
		if k := slices.IndexFunc(b.shares, func(r traffic.RegionShares) bool { return r.Region == s.Region }); k >= 0 && in(s.Region) {
			out[i] = b.shares[k]
		}
	}
	return out
}

// limitPace lowers the parts of members that grow too fast, and says whether one has not grown to its end. Where all
// others are held out in a region, a part has no limit: failover waits for nothing.
func (b *backendState) limitPace(members []traffic.Capacity, now time.Time) (limited []traffic.Capacity, waits bool) {
	if b.backend.Kind != fleet.Import {
		return members, false
	}
	held := [][]fleet.ClusterName{nil}
	for _, r := range b.regions {
		if out := r.health.HeldOut(); len(out) > 0 {
			held = append(held, out)
		}
	}
	return b.pace.Limit(members, func(cluster fleet.ClusterName) bool {
		return slices.ContainsFunc(held, func(out []fleet.ClusterName) bool {
			return !slices.ContainsFunc(members, func(m traffic.Capacity) bool {
				return m.Cluster != cluster && m.Usable() && !slices.Contains(out, m.Cluster)
			})
		})
	}, now)
}

// deferMove says that a move is not significant, or is small and may still be noise: while an edge is away it may be for as long.
// A large move is made on what one report says, so the small ones that correct it do not wait.
func (b *backendState) deferMove(move traffic.Move, now time.Time) bool {
	switch {
	case !move.Significant():
		b.smallSince = time.Time{}
		return true
	case !move.Small(), !move.Learned && now.Sub(b.largeAt) < traffic.SmallMoveDelay:
		return false
	case b.hasAway():
		b.smallSince, b.resplitDue = time.Time{}, true
		return true
	case b.smallSince.IsZero():
		b.smallSince = now
	}
	b.resplitDue = true
	return now.Sub(b.smallSince) < traffic.SmallMoveDelay
}

func (b *backendState) hasAway() bool {
	for _, r := range b.regions {
		if r.demand.HasAway() {
			return true
		}
	}
	return false
}

// keepLearned replaces fresh shares by the learned ones in force, where there are any.
func (b *backendState) keepLearned(fresh []traffic.RegionShares, members []traffic.Capacity) []traffic.RegionShares {
	out := slices.Clone(fresh)
	for i, s := range out {
		if b.region(s.Region).learnedAt.IsZero() {
			continue
		}
		if kept := withoutUnusable(b.sharesOf(s.Region), members); len(kept.Shares) > 0 {
			out[i] = kept
		}
	}
	return out
}

// withoutUnusable takes the part of members that can take nothing any more (no ready endpoint, or drained) and divides it
// over the others in proportion. Such a member is no longer held out or dead either.
func withoutUnusable(r traffic.RegionShares, members []traffic.Capacity) traffic.RegionShares {
	usable := func(c fleet.ClusterName) bool {
		return slices.ContainsFunc(members, func(m traffic.Capacity) bool { return m.Cluster == c && m.Usable() })
	}
	unusable := func(c fleet.ClusterName) bool { return !usable(c) }
	out := traffic.RegionShares{Region: r.Region, Overflow: r.Overflow,
		HeldOut: slices.DeleteFunc(slices.Clone(r.HeldOut), unusable), Dead: slices.DeleteFunc(slices.Clone(r.Dead), unusable)}
	kept := uint64(0)
	for _, s := range r.Shares {
		if usable(s.Cluster) {
			out.Shares = append(out.Shares, s)
			kept += uint64(s.Parts)
		}
	}
	if len(out.Shares) == len(r.Shares) || kept == 0 {
		return out
	}
	remainder := uint64(traffic.TotalParts)
	for i := range out.Shares {
		out.Shares[i].Parts = uint32(uint64(out.Shares[i].Parts) * traffic.TotalParts / kept)
		remainder -= uint64(out.Shares[i].Parts)
	}
	out.Shares[0].Parts += uint32(remainder)
	return out
}

// sameShares ignores Overflow, which edges do not get.
func sameShares(a, b traffic.RegionShares) bool {
	return a.Region == b.Region && slices.Equal(a.Shares, b.Shares) && slices.Equal(a.HeldOut, b.HeldOut) && slices.Equal(a.Dead, b.Dead)
}
