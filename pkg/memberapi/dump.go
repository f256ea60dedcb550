package memberapi

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// ReaderDump is what one member sees, for people.
type ReaderDump struct {
	Member fleet.ClusterName
	Region string
	// Namespaces has, for each that the member sees, how many objects of each kind are there.
	Namespaces map[string]map[string]int
}

// Dump is what each member sees, by name.
func (s *State) Dump() []ReaderDump {
	count := map[string]map[string]int{}
	for _, l := range []*Log{s.Imports, s.Slices} {
		for _, name := range l.names {
			if count[name.Namespace] == nil {
				count[name.Namespace] = map[string]int{}
			}
			count[name.Namespace][l.Resource.Name]++
		}
	}
	out := []ReaderDump{}
	for _, cluster := range slices.Sorted(maps.Keys(s.readers)) {
		r := s.readers[cluster]
		d := ReaderDump{Member: cluster, Region: r.member.Spec.Region, Namespaces: map[string]map[string]int{}}
		for namespace := range r.sees {
			if count[namespace] != nil {
				d.Namespaces[namespace] = count[namespace]
			}
		}
		out = append(out, d)
	}
	return out
}
