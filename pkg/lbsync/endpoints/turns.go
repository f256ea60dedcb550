package endpoints

import (
	"maps"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// slicesPerTurn is how many changed slices of one namespace, which is one member's, a pass takes. Each may have 100
// endpoints, and all 20,000 endpoints that a member may have make a pass of some 50 ms: so long would the changes of all
// others wait. (BenchmarkFlood)
const slicesPerTurn = 32

// turns say which slices of a namespace a pass takes: those that follow, in the order of their names, the last one that was
// taken. So one that changes all the time keeps no other from its turn.
type turns map[string]state.SliceKey

// beyond takes out of changes the slices whose turn has not come, and returns them.
func (t turns) beyond(changes map[state.SliceKey]*state.Slice) map[state.SliceKey]*state.Slice {
	of := map[string][]state.SliceKey{}
	for key := range changes {
		namespace, _, _ := strings.Cut(string(key), "/")
		of[namespace] = append(of[namespace], key)
	}
	beyond := map[state.SliceKey]*state.Slice{}
	for namespace, keys := range of {
		if len(keys) <= slicesPerTurn {
			delete(t, namespace)
			continue
		}
		slices.Sort(keys)
		first, found := slices.BinarySearch(keys, t[namespace])
		if found {
			first++
		}
		keys = append(keys[first:len(keys):len(keys)], keys[:first]...)
		t[namespace] = keys[slicesPerTurn-1]
		for _, key := range keys[slicesPerTurn:] {
			beyond[key] = changes[key]
			delete(changes, key)
		}
	}
	return beyond
}

// takeTurn drains the inbox, except for slices whose turn has not come. Those that change again meanwhile are newer.
func (in inbox) takeTurn(t turns) state.Changes {
	changes := in.Drain()
	if beyond := t.beyond(changes.Slices); len(beyond) > 0 {
		in.Add(func(c *state.Changes) {
			maps.Copy(beyond, c.Slices)
			c.Slices = beyond
		})
	}
	return changes
}
