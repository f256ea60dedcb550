package state

import (
	"testing"

	"pgregory.net/rapid"
)

var candidates = rapid.Custom(func(t *rapid.T) Candidate {
	return Candidate{Name: string(rune('a' + rapid.IntRange(0, 5).Draw(t, "name"))), Ready: rapid.Bool().Draw(t, "ready"), Decides: rapid.Bool().Draw(t, "decides")}
})

// Whoever hears the same candidates elects the same one: a ready one, and one that decides already if there is any.
func TestDecider(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(candidates, 1, 5, func(c Candidate) string { return c.Name }).Draw(t, "candidates")
		byName := map[string]Candidate{}
		ready, decides := false, false
		for _, c := range all {
			byName[c.Name] = c
			ready, decides = ready || c.Ready, decides || c.Ready && c.Decides
		}
		for i, self := range all {
			others := append(append([]Candidate(nil), all[:i]...), all[i+1:]...)
			elected := byName[Decider(self, rapid.Permutation(others).Draw(t, "order"))]
			switch {
			case !ready && elected != self:
				t.Fatalf("nobody is ready, and %v follows %v", self, elected)
			case ready && (!elected.Ready || decides && !elected.Decides):
				t.Fatalf("%v follows %v", self, elected)
			case ready && elected.Name != Decider(all[0], all[1:]):
				t.Fatalf("%v follows %v, %v another", self, elected, all[0])
			}
		}
	})
}
