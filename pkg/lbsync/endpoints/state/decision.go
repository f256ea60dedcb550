package state

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Decision is what is in force for one backend at one replica.
type Decision struct {
	Regions []RegionDecision      `json:"regions"`
	Growing []traffic.GrowingPart `json:"growing,omitempty"`
}

// RegionDecision is one region's part of a Decision.
type RegionDecision struct {
	traffic.RegionShares
	// Failing are the members that are held out, or would be if not all were, and Unreachable the dead ones of them.
	Failing     []fleet.ClusterName `json:",omitempty"`
	Unreachable []fleet.ClusterName `json:",omitempty"`
	// Demand is what the region's clients send, in requests per second, to within demandPrecision. It is for replicas that
	// have just started. 0 where shares do not depend on it.
	Demand float64 `json:",omitempty"`
	// Known: the shares come from demand, from edges that had them or from another replica. Else a replica that has just
	// started made them up.
	Known bool
}

// demandPrecision is by which part the demand must change to be said again. Else replicas would hear of each backend each
// second. It is less than what moves shares (traffic.Move).
const demandPrecision = 0.02

// Valid says whether a Decision is one: parts that sum to the whole, or none, and a demand.
func (d *Decision) Valid() bool {
	return !slices.ContainsFunc(d.Regions, func(r RegionDecision) bool {
		sum := uint64(0)
		for _, s := range r.Shares {
			sum += uint64(s.Parts)
		}
		return sum != traffic.TotalParts && len(r.Shares) > 0 || r.Demand < 0
	})
}

// TakeDecisions returns what is in force of the backends for which that changed since the last call; nil is one that is no
// longer in use.
func (s *State) TakeDecisions() map[fleet.Backend]*Decision {
	out := s.replicas.said
	s.replicas.said = map[fleet.Backend]*Decision{}
	return out
}

// decide notes what is in force for a backend, for other replicas. Each replica says it, whoever decides: one that has just
// started learns it from any.
func (s *State) decide(b *backendState, growing []traffic.GrowingPart) {
	if s.hub.Replica == "" || b.backend.Kind != fleet.Import {
		return
	}
	d := &Decision{Growing: growing}
	for _, shares := range b.shares {
		r := b.region(shares.Region)
		d.Regions = append(d.Regions, RegionDecision{RegionShares: shares, Failing: r.health.HeldOut(), Unreachable: r.health.Dead(),
			Demand: b.demandToSay(shares.Region), Known: s.replicas.ready || r.known()})
	}
	if !reflect.DeepEqual(d, b.said) {
		b.said, s.replicas.said[b.backend] = d, d
	}
}

// demandToSay is the demand of a region, or what was said of it last where that is about the same.
func (b *backendState) demandToSay(region string) float64 {
	rate := b.region(region).demand.Rate()
	switch {
	case b.policy.Rate == 0:
		return 0
	case b.said != nil:
		for _, r := range b.said.Regions {
			if r.Region == region && math.Abs(rate-r.Demand) <= demandPrecision*r.Demand {
				return r.Demand
			}
		}
	}
	return rate
}

// known says whether the shares in force were learned.
func (r *regionState) known() bool { return r.word != nil || !r.learnedAt.IsZero() }

// wordsOn is what another replica decided about a backend: the one that decides. While this one has just started and none
// decides for it, what others know of regions of which it knows nothing.
func (s *State) wordsOn(b *backendState) (words map[string]*RegionDecision, growing []traffic.GrowingPart) {
	words = map[string]*RegionDecision{}
	if !s.decides() {
		if d := s.replicas.other(s.replicas.decider).decisions[b.backend]; d != nil {
			for i := range d.Regions {
				words[d.Regions[i].Region] = &d.Regions[i]
			}
			growing = d.Growing
		}
		return words, growing
	}
	if s.replicas.ready {
		return words, nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.replicas.others)) {
		o := s.replicas.others[name]
		d := o.decisions[b.backend]
		if !o.heard || d == nil {
			continue
		}
		for i, region := range d.Regions {
			r := b.region(region.Region)
			// One that took over keeps what it knows, or two that have just started would believe each other without end.
			if unknown := r.learnedAt.IsZero() && r.word == nil || r.follows; region.Known && unknown && words[region.Region] == nil {
				words[region.Region], growing = &d.Regions[i], d.Growing
			}
		}
	}
	return words, growing
}

// adopt takes what another replica decided about a region with such edges; nil: nothing. When that replica is not heard any more, one that
// has just started keeps the shares as if edges had said them: until it knows the demand.
func (r *regionState) adopt(word *RegionDecision, edges []string, c splitContext) {
	if c.ready || word == nil && r.demand.Settled(edges, r.learnedAt, c.now) { // it knows the demand itself
		r.demand.Expect(0, nil)
	}
	if r.follows = word != nil; word == nil {
		return
	}
	r.learnedAt, r.settled = c.now, true
	if c.ready {
		r.learnedAt = time.Time{}
	} else {
		r.demand.Expect(word.Demand, edges)
	}
	if r.word == nil || !slices.Equal(r.word.Failing, word.Failing) || !slices.Equal(r.word.Unreachable, word.Unreachable) ||
		!sameShares(r.word.RegionShares, word.RegionShares) {
		r.health.Adopt(word.Failing, word.Unreachable, c.now)
	}
	r.word = word
}

// takeWords replaces shares by those that another replica decided, without members that can take nothing as this one sees
// it.
func takeWords(shares []traffic.RegionShares, c splitContext) {
	for i, s := range shares {
		if word := c.words[s.Region]; word != nil {
			if usable := withoutUnusable(word.RegionShares, c.members); len(usable.Shares) > 0 {
				shares[i] = usable
			}
		}
	}
}
