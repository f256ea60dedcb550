package traffic

import (
	"cmp"
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// LearnShares returns the shares in force in one region, from the versions that one of its edges has. Where they differ,
// because the edge missed a part of the last move, the shares of most of them count, then the first by text.
func LearnShares(region string, versions []string) []BackendShares {
	votes := map[fleet.Backend]map[string]int{}
	parsed := map[string]BackendShares{}
	for _, version := range versions {
		_, shares, ok := ParseVersion(version)
		if !ok {
			continue
		}
		for _, s := range shares {
			s.Region = region
			if votes[s.Backend] == nil {
				votes[s.Backend] = map[string]int{}
			}
			votes[s.Backend][s.text()]++
			parsed[s.Backend.String()+" "+s.text()] = s
		}
	}
	var out []BackendShares
	for backend, texts := range votes {
		winner := slices.MinFunc(slices.Sorted(maps.Keys(texts)), func(a, b string) int { return cmp.Compare(texts[b], texts[a]) })
		out = append(out, parsed[backend.String()+" "+winner])
	}
	return sortedShares(out)
}

// Votes are what the edges of one region say that they hold of one backend's shares. The zero value has none.
type Votes struct{ byEdge map[string]vote }

type vote struct {
	source, text string
	shares       RegionShares
}

// Add sets what an edge says. An edge names itself, so source, the address that it connects from, has a say of its own: one
// machine cannot outvote others by posing as many edges.
func (v *Votes) Add(edge, source string, shares RegionShares) {
	if v.byEdge == nil {
		v.byEdge = map[string]vote{}
	}
	v.byEdge[edge] = vote{source, BackendShares{RegionShares: shares}.text(), shares}
}

// Winner returns the shares that are held at most addresses, then by most edges, then the first by text.
func (v *Votes) Winner() RegionShares {
	type count struct {
		vote
		edges   int
		sources map[string]bool
	}
	counts := map[string]*count{}
	for _, one := range v.byEdge {
		c := counts[one.text]
		if c == nil {
			c = &count{vote: one, sources: map[string]bool{}}
			counts[one.text] = c
		}
		c.edges++
		c.sources[one.source] = true
	}
	if len(counts) == 0 {
		return RegionShares{}
	}
	return slices.MinFunc(slices.Collect(maps.Values(counts)), func(a, b *count) int {
		return cmp.Or(cmp.Compare(len(b.sources), len(a.sources)), cmp.Compare(b.edges, a.edges), cmp.Compare(a.text, b.text))
	}).shares
}
