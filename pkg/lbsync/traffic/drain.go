package traffic

import (
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// drainLevel is a range of levels at which the same members are drained (step 5).
type drainLevel struct {
	weight  float64    // all weights sum to 1
	members []Capacity // drained ones have scaler 0
}

// drainLevels lists the levels from the lowest on, at which the fewest members are drained. There is at least one.
func drainLevels(members []Capacity) []drainLevel {
	var ends []float64
	for _, m := range members {
		if m.Ready > 0 && m.kept() > 0 {
			ends = append(ends, m.kept())
		}
	}
	if len(ends) == 0 { // all are drained, or none is ready
		return []drainLevel{{1, members}}
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	levels, begin, last := make([]drainLevel, len(ends)), 0.0, ends[len(ends)-1]
	for i, end := range ends {
		levels[i] = drainLevel{weight: (end - begin) / last, members: slices.Clone(members)}
		for k, m := range members {
			if m.kept() < end {
				levels[i].members[k].Scaler = 0
			}
		}
		begin = end
	}
	return levels
}

// average is the average of the shares at all levels. Who is held out or dead is the same at each, but for drained
// members, which are not probed: the lowest level says it.
func average(in SplitInput, levels []drainLevel) []RegionShares {
	var out []RegionShares
	var overflow []float64
	var parts []map[fleet.ClusterName]float64
	for _, level := range levels {
		in.Members = level.members
		shares := splitLevel(in)
		if out == nil {
			out, overflow, parts = shares, make([]float64, len(shares)), make([]map[fleet.ClusterName]float64, len(shares))
		}
		for i, r := range shares {
			overflow[i] += level.weight * float64(r.Overflow)
			if parts[i] == nil {
				parts[i] = map[fleet.ClusterName]float64{}
			}
			for _, s := range r.Shares {
				parts[i][s.Cluster] += level.weight * float64(s.Parts)
			}
		}
	}
	for i := range out {
		out[i].Overflow, out[i].Shares = uint32(overflow[i]+0.5), sharesFrom(parts[i])
	}
	return out
}

// sharesFrom rounds parts of any sum to shares.
func sharesFrom(parts map[fleet.ClusterName]float64) []Share {
	clusters := make([]fleet.ClusterName, 0, len(parts))
	for c := range parts {
		clusters = append(clusters, c)
	}
	slices.Sort(clusters)
	fractions := make([]float64, len(clusters))
	for i, c := range clusters {
		fractions[i] = parts[c]
	}
	var shares []Share
	for i, n := range RoundToParts(fractions) {
		if n > 0 {
			shares = append(shares, Share{Cluster: clusters[i], Parts: n})
		}
	}
	return shares
}
