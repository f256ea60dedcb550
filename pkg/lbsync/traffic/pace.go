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
