package membership

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Sighting is a Beat and when a replica of the hub first saw it.
type Sighting struct {
	Beat Beat
	At   time.Time
}

// Table has the newest Sighting of each node. Tables are joined by Merge in any order
// and any number of times with the same result.
type Table map[Name]Sighting

// Hear takes a Sighting over if it is newer than what the Table has.
func (t Table) Hear(s Sighting) (changed bool) {
	old, ok := t[s.Beat.Node]
	if ok && s.compare(old) <= 0 {
		return false
	}
	t[s.Beat.Node] = s
	return true
}

// Merge returns the join of two Tables.
func (t Table) Merge(other Table) Table {
	joined := maps.Clone(t)
	if joined == nil {
		joined = Table{}
	}
	for _, s := range other {
		joined.Hear(s)
	}
	return joined
}

// Forget removes nodes of which nothing was heard since a time.
func (t Table) Forget(since time.Time) {
	maps.DeleteFunc(t, func(_ Name, s Sighting) bool { return s.At.Before(since) })
}

// Nodes are the names of all nodes, sorted.
func (t Table) Nodes() []Name { return slices.Sorted(maps.Keys(t)) }

// compare orders Sightings of one node: the newer Beat is greater. A Beat was seen when
// it was seen first.
func (s Sighting) compare(other Sighting) int {
	return cmp.Or(s.Beat.compare(other.Beat), other.At.Compare(s.At))
}
