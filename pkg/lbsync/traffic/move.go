package traffic

import (
	"slices"
	"time"
)

const (
	// minMoveFraction is the part of an import's demand that a move must change to be published.
	minMoveFraction = 0.01
	// minLearnedMoveFraction is the same while the shares in force were learned: a restarted hub's own counting moves
	// nothing.
	minLearnedMoveFraction = 0.03
	// smallMoveFraction is the part of an import's demand below which a move is not urgent.
	smallMoveFraction = 0.10
	// SmallMoveDelay is how long a small move must stay significant before it is published. It is longer than the window
	// of the estimate. Clients that change from one edge to another between two reports are counted by both or by none of
	// them for as long, and should move nothing.
	SmallMoveDelay = demandWindow + time.Second
)

// Move is a change of the shares of one import, all regions together.
type Move struct {
	Old, New []RegionShares
	// Demand by region, in requests per second.
	Demand map[string]float64
	// Members are those that New was split over.
	Members []Capacity
	// Learned: Old was learned from the edges after a restart.
	Learned bool
}

// Significant says whether a move should be published: it is urgent, or changes where at least 1 % of the import's
// requests go.
func (m Move) Significant() bool {
	fraction, urgent := m.movedFraction()
	limit := minMoveFraction
	if m.Learned {
		limit = minLearnedMoveFraction
	}
	return urgent || fraction > 0 && fraction >= limit
}

// Small says whether a significant move can wait for SmallMoveDelay to prove that it is no noise.
func (m Move) Small() bool {
	fraction, urgent := m.movedFraction()
	return !urgent && fraction < smallMoveFraction
}

// movedFraction is the part of the import's demand that goes elsewhere. A move is urgent where a region had no shares,
// the members held out or dead change, or a member may take nothing any more.
func (m Move) movedFraction() (fraction float64, urgent bool) {
	old := map[string]RegionShares{}
	for _, r := range m.Old {
		old[r.Region] = r
	}
	total, moved := 0.0, 0.0
	for _, r := range m.New {
		before, ok := old[r.Region]
		healthChanged := !slices.Equal(before.HeldOut, r.HeldOut) || !slices.Equal(before.Dead, r.Dead)
		if !ok || healthChanged || (len(before.Shares) == 0) != (len(r.Shares) == 0) || m.dropsUnusable(before, r) {
			return 1, true
		}
		total += m.Demand[r.Region]
		moved += m.Demand[r.Region] * before.fractionMoved(r)
	}
	if total == 0 { // without any demand every region counts alike
		for _, r := range m.New {
			total++
			moved += old[r.Region].fractionMoved(r)
		}
	}
	if total == 0 {
		return 0, false
	}
	return moved / total, false
}

// dropsUnusable says whether a member that has a share in before, and none in after, has no endpoint or is drained.
func (m Move) dropsUnusable(before, after RegionShares) bool {
	for _, s := range before.Shares {
		k := slices.IndexFunc(m.Members, func(c Capacity) bool { return c.Cluster == s.Cluster })
		usable := k >= 0 && m.Members[k].Usable()
		if !usable && after.PartsOf(s.Cluster) == 0 {
			return true
		}
	}
	return false
}

// fractionMoved is the fraction of requests that other shares send elsewhere.
func (r RegionShares) fractionMoved(other RegionShares) float64 {
	moved := uint32(0)
	for _, s := range other.Shares {
		if before := r.PartsOf(s.Cluster); s.Parts > before {
			moved += s.Parts - before
		}
	}
	return float64(moved) / TotalParts
}
