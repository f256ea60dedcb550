package traffic

import (
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// paceWindow is the time in which a member's part of an import may double.
const paceWindow = 10 * time.Second

// Pace bounds how fast the members' parts of one import gain weight: a member draws requests by the endpoints that it
// announces, and nobody has seen new ones answer. The zero value knows no member yet, and takes all parts as they are: an
// import's first endpoints, or those that a hub finds when it starts.
type Pace struct {
	known map[fleet.ClusterName]pacedPart
}

// pacedPart is one member's part: how many endpoints counted when its window began, and count now.
type pacedPart struct {
	since       time.Time
	base, count int
}

// Limit lowers Ready of the members whose parts grew too fast. A part may be as large as the largest of the others, so that
// a cluster which joins or comes back has its share at once; beyond that it may double in each window. Losing endpoints
// counts at once. Where alone says that the others can take nothing, a part has no limit. waits: Limit is to be called
// again, since a part has not grown to its end.
func (p *Pace) Limit(members []Capacity, alone func(fleet.ClusterName) bool, now time.Time) (limited []Capacity, waits bool) {
	first := p.known == nil
	next := make(map[fleet.ClusterName]pacedPart, len(members))
	for _, m := range members {
		part, known := p.known[m.Cluster]
		if !known || now.Sub(part.since) >= paceWindow {
			part.since, part.base = now, part.count
		}
		largest := max(2*part.base, p.largestOther(m.Cluster), 1)
		if first || alone(m.Cluster) {
			part.since, part.base, largest = now, m.Ready, m.Ready
		}
		part.count = min(m.Ready, largest)
		part.base = min(part.base, part.count)
		waits = waits || part.count < m.Ready
		next[m.Cluster] = part
		m.Ready = part.count
		limited = append(limited, m)
	}
	p.known = next
	return limited, waits
}

// GrowingPart is a part that Limit has lowered.
type GrowingPart struct {
	Cluster fleet.ClusterName `json:"cluster"`
	// Base is how many endpoints counted when the window began, Count how many do now.
	Base  int `json:"base"`
	Count int `json:"count"`
}

// Growing lists the parts of members that have not grown to their end, by name.
func (p *Pace) Growing(members []Capacity) (growing []GrowingPart) {
	for _, m := range members {
		if part, known := p.known[m.Cluster]; known && part.count < m.Ready {
			growing = append(growing, GrowingPart{m.Cluster, part.base, part.count})
		}
	}
	return growing
}

// Adopt takes the parts that grow from another replica of the hub. Where none was known, the others are as large as they are.
func (p *Pace) Adopt(growing []GrowingPart, members []Capacity, now time.Time) {
	if p.known == nil && len(growing) > 0 {
		p.known = map[fleet.ClusterName]pacedPart{}
		for _, m := range members {
			p.known[m.Cluster] = pacedPart{now, m.Ready, m.Ready}
		}
	}
	for _, g := range growing {
		if part := p.known[g.Cluster]; part.base != g.Base || part.count > g.Count {
			p.known[g.Cluster] = pacedPart{now, g.Base, g.Count}
		}
	}
}

// largestOther is the largest part of the other members, as it counted last.
func (p *Pace) largestOther(cluster fleet.ClusterName) int {
	largest := 0
	for other, part := range p.known {
		if other != cluster {
			largest = max(largest, part.count)
		}
	}
	return largest
}
