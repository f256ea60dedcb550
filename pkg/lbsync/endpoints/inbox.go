package endpoints

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// maxPendingReports bounds the load reports that wait for a Loop that is stuck: a minute of reports of a hundred edges.
const maxPendingReports = 6000

// inbox collects the changes since the last pass.
type inbox struct{ *batch.Inbox[state.Changes] }

func newInbox() inbox { return inbox{batch.NewInbox(state.NewChanges)} }

func (in inbox) addReport(r state.LoadReport) {
	in.Add(func(c *state.Changes) {
		if len(c.Loads) < maxPendingReports {
			c.Loads = append(c.Loads, r)
		}
	})
}

// handler adds the objects of one informer.
func handler[T client.Object](in inbox, add func(changes *state.Changes, object T, deleted bool)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { in.Add(func(c *state.Changes) { add(c, o.(T), false) }) },
		UpdateFunc: func(_, o any) { in.Add(func(c *state.Changes) { add(c, o.(T), false) }) },
		DeleteFunc: func(o any) {
			if deleted, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = deleted.Obj
			}
			in.Add(func(c *state.Changes) { add(c, o.(T), true) })
		},
	}
}

func (in inbox) sliceHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, s *discoveryv1.EndpointSlice, deleted bool) {
		key := state.SliceKey(s.Namespace + "/" + s.Name)
		if deleted {
			c.Slices[key] = nil
			return
		}
		c.Slices[key] = state.ReadSlice(s)
	})
}

func (in inbox) memberHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, m *v1alpha1.MemberCluster, deleted bool) {
		name := m.Name
		if deleted {
			m = nil
		}
		c.Members[name] = m
	})
}

func (in inbox) poolHandler() toolscache.ResourceEventHandler {
	return handler(in, func(c *state.Changes, p *v1alpha1.EdgePool, deleted bool) {
		name := p.Name
		if deleted {
			p = nil
		}
		c.Pools[name] = p
	})
}
