package state

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// learningTime is how long after the first edge of a region the others are heard: Envoys reconnect within half a second.
// It is over before load reports may replace what was learned (traffic.Demand.Settled).
const learningTime = 3 * time.Second

// learning is what the edges of one region say that they hold, since the hub started.
type learning struct {
	since time.Time
	votes map[fleet.Backend]*traffic.Votes // nil: it is over
}

// Learn takes the shares that an edge holds (traffic.LearnShares). Where the hub has just started, those that most edges of
// the region hold replace its own. It lists the assignments that changed.
//
// An edge may say anything. Of what it says only members with ready endpoints count, so that the bound of any lie is a
// division over members that can serve, until load reports are counted.
func (s *State) Learn(edge Edge, held []traffic.BackendShares, now time.Time) (changed []string) {
	if e := s.edges[edge.Key()]; e != nil {
		e.versionsReported = true
	}
	l := s.beginLearning(edge.Region, now)
	if s.endLearning(now); l.votes == nil {
		return nil
	}
	learned := newDirty() // of these only the assignments count: learned shares are not divided again
	for _, h := range held {
		b := s.backends[h.Backend]
		if b == nil || h.Backend.Kind != fleet.Import {
			continue
		}
		if l.votes[h.Backend] == nil {
			l.votes[h.Backend] = &traffic.Votes{}
		}
		h.Region = edge.Region
		l.votes[h.Backend].Add(edge.Key(), edge.Source, withoutUnusable(h.RegionShares, b.members))
		if b.learn(l.votes[h.Backend].Winner(), now) {
			learned.add(b)
		}
	}
	return s.existing(learned.assignments)
}

// beginLearning is called for each edge of a region, wherever it is connected: a replica that knows the demand of a region
// learns nothing from the first edge of it that comes here.
func (s *State) beginLearning(region string, now time.Time) *learning {
	if s.learning[region] == nil {
		s.learning[region] = &learning{since: now, votes: map[fleet.Backend]*traffic.Votes{}}
	}
	return s.learning[region]
}

func (s *State) endLearning(now time.Time) {
	for _, l := range s.learning {
		if now.Sub(l.since) >= learningTime {
			l.votes = nil
		}
	}
}

// learn replaces the shares of a region by those that its edges hold. It says whether the shares in force changed.
func (b *backendState) learn(learned traffic.RegionShares, now time.Time) (changed bool) {
	r := b.region(learned.Region)
	if r.word != nil { // what a replica says is newer
		return false
	}
	if r.learnedAt.IsZero() {
		r.learnedAt = now
	} else if sameShares(r.learned, learned) {
		return false
	}
	r.settled, b.resplitDue = false, true
	for _, c := range slices.Concat(r.learned.HeldOut, r.learned.Dead) { // as fewer edges said
		r.health.Readmit(c)
	}
	// Members that are all dead are not held out.
	for _, c := range slices.Concat(learned.HeldOut, learned.Dead) {
		r.health.HoldOut(c, slices.Contains(learned.Dead, c), now)
	}
	r.learned = learned
	k := slices.IndexFunc(b.shares, func(s traffic.RegionShares) bool { return s.Region == learned.Region })
	if k < 0 || len(learned.Shares) == 0 || sameShares(b.shares[k], learned) {
		return false
	}
	b.shares = slices.Clone(b.shares)
	b.shares[k] = learned
	return true
}
