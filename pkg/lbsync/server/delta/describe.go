package delta

import (
	"fmt"
	"slices"
	"strings"
)

// Describe returns the state as text for people: how many resources of each kind
// there are, but nothing of their content.
func (p *Pool) Describe() string {
	var out strings.Builder
	fmt.Fprintf(&out, "snapshot %d:", p.generation)
	for k := range kinds {
		if !p.kinds[k].ready {
			fmt.Fprintf(&out, " %s unknown", k)
			continue
		}
		fmt.Fprintf(&out, " %d %s", len(p.kinds[k].resources), k)
	}
	return out.String() + "\n"
}

// Describe returns the state as text for people, a line for each kind that is not
// up to date and each NACK.
func (s *Stream) Describe() string {
	var out strings.Builder
	fmt.Fprintf(&out, "applied snapshot %d, answered snapshot %d\n", s.generation, s.answered)
	for k := range kinds {
		sub := &s.kinds[k]
		if !sub.started {
			fmt.Fprintf(&out, "  %s: not requested\n", k)
		} else if len(sub.inFlight)+len(sub.notApplied)+len(sub.toRemove) > 0 {
			fmt.Fprintf(&out, "  %s: %d responses in flight, %d not applied %q, %d to remove %q\n", k, len(sub.inFlight),
				len(sub.notApplied), some(sub.notApplied), len(sub.toRemove), some(sub.toRemove))
		}
	}
	nacks := s.Progress().Nacks
	for _, nack := range nacks[:min(len(nacks), maxDescribed)] {
		fmt.Fprintf(&out, "  NACK of %s %s %s: %s\n", nack.TypeURL, nack.Name, nack.Version, nack.Message)
	}
	return out.String()
}

// maxDescribed bounds the names and NACKs in a description: it is made while the
// edge waits, and an edge may have asked for any names.
const maxDescribed = 20

// some are a few names of a set, sorted.
func some(set map[string]struct{}) (names []string) {
	for name := range set {
		if names = append(names, name); len(names) == maxDescribed {
			break
		}
	}
	slices.Sort(names)
	return names
}
