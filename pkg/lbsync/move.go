package lbsync

import (
	"cmp"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// worthOfDemand is the part of an import's demand that a move must be worth to be published.
	worthOfDemand = 0.01
	// worthOfLearned is the same while the shares in force were learned: a restart moves nothing by its own counting.
	worthOfLearned = 0.03
	// smallMove is the part of an import's demand below which a move is not urgent.
	smallMove = 0.10
	// Patience is how long a small move must stay worth publishing: longer than the window of the estimate, so that
	// clients which change from one edge to another between two reports, and are counted by both or by none of them
	// for as long, move nothing.
	Patience = demandWindow + time.Second
)

// Move is a change of the shares of one import, all regions together.
type Move struct {
	Old, New []RegionShares
	// Demand by region, in requests per second.
	Demand map[string]float64
	// Members as New was split over: one that has no ready endpoint or scaler 0 moves at once.
	Members []Capacity
	// Learned: Old was learned from the edges after a restart.
	Learned bool
}

// Worth says whether a move is worth publishing: a region that had nothing, a member that may take nothing any more,
// a change of who is held out or dead, or requests that change their place by at least 1 % of the import's demand.
func (m Move) Worth() bool {
	part, must := m.weigh()
	limit := worthOfDemand
	if m.Learned {
		limit = worthOfLearned
	}
	return must || part > 0 && part >= limit
}

// Small says whether a move that is worth publishing can wait (Patience) to prove that it is no noise.
func (m Move) Small() bool {
	part, must := m.weigh()
	return !must && part < smallMove
}

// weigh gives the part of the import's demand that changes its place, and whether the move must be made for another reason.
func (m Move) weigh() (part float64, must bool) {
	old := map[string]RegionShares{}
	for _, r := range m.Old {
		old[r.Region] = r
	}
	total, moved := 0.0, 0.0
	for _, r := range m.New {
		before, known := old[r.Region]
		others := !slices.Equal(before.HeldOut, r.HeldOut) || !slices.Equal(before.Dead, r.Dead)
		if !known || others || (len(before.Shares) == 0) != (len(r.Shares) == 0) || m.mustLeave(before, r) {
			return 1, true
		}
		total += m.Demand[r.Region]
		moved += m.Demand[r.Region] * before.differs(r)
	}
	if total == 0 { // nobody asks: every region counts alike
		for _, r := range m.New {
			total++
			moved += old[r.Region].differs(r)
		}
	}
	if total == 0 {
		return 0, false
	}
	return moved / total, false
}

// mustLeave says whether a member that has a share in before, and none in after, has no endpoint or is drained.
func (m Move) mustLeave(before, after RegionShares) bool {
	for _, s := range before.Shares {
		k := slices.IndexFunc(m.Members, func(c Capacity) bool { return c.Cluster == s.Cluster })
		able := k >= 0 && m.Members[k].Ready > 0 && m.Members[k].Scaler > 0
		if !able && after.Of(s.Cluster) == 0 {
			return true
		}
	}
	return false
}

// Of gives a cluster's parts of Whole.
func (r RegionShares) Of(cluster fleet.ClusterName) uint32 {
	k, found := slices.BinarySearchFunc(r.Shares, cluster, func(s Share, c fleet.ClusterName) int { return cmp.Compare(s.Cluster, c) })
	if !found {
		return 0
	}
	return r.Shares[k].Parts
}

// differs is the fraction of requests that another division sends elsewhere.
func (r RegionShares) differs(other RegionShares) float64 {
	more := uint32(0)
	for _, s := range other.Shares {
		if was := r.Of(s.Cluster); s.Parts > was {
			more += s.Parts - was
		}
	}
	return float64(more) / Whole
}
