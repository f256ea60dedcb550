package endpoints

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// maxPendingReports bounds the load reports that wait for a Loop that is stuck, and maxPendingLoads the assignments and
// localities in them: some seconds of reports of a hundred edges.
const maxPendingReports, maxPendingLoads = 6000, 1_000_000

// maxPendingWords is how many words of other replicas wait as they came. Of more, the last ones are kept: while no pass runs,
// as long as a kind cannot be listed, each edge of the others would cost one a second.
const maxPendingWords = 10_000

// inbox collects the changes since the last pass.
type inbox struct{ *batch.Inbox[state.Changes] }

func newInbox() inbox { return inbox{batch.NewInbox(state.NewChanges)} }

func (in inbox) addReport(r state.LoadReport) {
	in.Add(func(c *state.Changes) {
		if hasRoom(c, r.Loads) {
			c.Loads = append(c.Loads, r)
		}
	})
}

// addWord adds what another replica said. A report for which there is no room counts as lost.
func (in inbox) addWord(w state.Word) {
	in.Add(func(c *state.Changes) {
		if len(c.Words) >= maxPendingWords && len(c.Words) == cap(c.Words) {
			keepLastWords(c)
			c.Words = slices.Grow(c.Words, len(c.Words)) // so that the next time is as many words away as were kept
		}
		if len(w.Edge.Loads) > 0 && !hasRoom(c, w.Edge.Loads) {
			w.Edge.Loads, w.Edge.Interval, w.Edge.Sequence = nil, 0, 0
		}
		c.Words = append(c.Words, w)
	})
}

// wordKey is what a Word is about. A later one takes the place of an earlier one.
type wordKey struct {
	replica, edge string
	kind          state.WordKind
	backend       fleet.Backend
}

func keyOf(w *state.Word) wordKey {
	return wordKey{replica: w.Replica, edge: w.EdgeKey + w.Edge.Edge.Key(), kind: w.Kind, backend: w.Backend}
}

// keepLastWords keeps the last Word of each key, in order. Reports that it leaves out are lost. One without loads that follows
// would hide that by its number.
func keepLastWords(c *state.Changes) {
	last := map[wordKey]int{}
	for i := range c.Words {
		last[keyOf(&c.Words[i])] = i
	}
	kept := c.Words[:0]
	for i, w := range c.Words {
		switch size := sizeOf(w.Edge.Loads); {
		case last[keyOf(&w)] == i:
			if size == 0 {
				w.Edge.Sequence = 0
			}
			kept = append(kept, w)
		case size > 0:
			c.Reports--
			c.LoadsSize -= size
		}
	}
	clear(c.Words[len(kept):])
	c.Words = kept
}

func sizeOf(loads []state.Load) int {
	size := len(loads)
	for _, load := range loads {
		size += len(load.Localities)
	}
	return size
}

// hasRoom counts a report, if there is room for it.
func hasRoom(c *state.Changes, loads []state.Load) bool {
	size := sizeOf(loads)
	if c.Reports >= maxPendingReports || c.LoadsSize+size > maxPendingLoads {
		return false
	}
	c.Reports++
	c.LoadsSize += size
	return true
}

// handler adds the objects of one informer; nil is a deleted one.
func handler[T any](in inbox, set func(changes *state.Changes, name toolscache.ObjectName, object *T)) toolscache.ResourceEventHandler {
	changed := func(o any, object *T) {
		if name, err := toolscache.DeletionHandlingObjectToName(o); err == nil {
			in.Add(func(c *state.Changes) { set(c, name, object) })
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changed(o, o.(*T)) },
		UpdateFunc: func(_, o any) { changed(o, o.(*T)) },
		DeleteFunc: func(o any) { changed(o, nil) },
	}
}

func (in inbox) sliceHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, name toolscache.ObjectName, s *discoveryv1.EndpointSlice) {
		c.Slices[state.SliceKey(name.String())] = state.ReadSlice(s)
	})
}

func (in inbox) memberHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, name toolscache.ObjectName, m *v1alpha1.MemberCluster) {
		c.Members[name.Name] = m
	})
}

func (in inbox) poolHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, name toolscache.ObjectName, p *v1alpha1.EdgePool) { c.Pools[name.Name] = p })
}
