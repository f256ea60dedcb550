package endpoints

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// maxPendingReports bounds the load reports that wait for a Loop that is stuck, and maxPendingLoads the assignments and
// localities in them: some seconds of reports of a hundred edges.
const maxPendingReports, maxPendingLoads = 6000, 1_000_000

// inbox collects the changes since the last pass.
type inbox struct{ *batch.Inbox[state.Changes] }

func newInbox() inbox { return inbox{batch.NewInbox(state.NewChanges)} }

func (in inbox) addReport(r state.LoadReport) {
	size := len(r.Loads)
	for _, load := range r.Loads {
		size += len(load.Localities)
	}
	in.Add(func(c *state.Changes) {
		if len(c.Loads) < maxPendingReports && c.LoadsSize+size <= maxPendingLoads {
			c.Loads = append(c.Loads, r)
			c.LoadsSize += size
		}
	})
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
