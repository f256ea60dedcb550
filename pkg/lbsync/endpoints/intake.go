package endpoints

import (
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// intake is what came in since the last pass. Handlers put, the Loop takes; nobody waits.
type intake struct {
	mu      sync.Mutex
	pending events
	// kick wakes the Loop (one place).
	kick chan struct{}
}

// events is one pass's worth of changes; a nil value is a deletion. Only the last state of an object counts, every
// load report does.
type events struct {
	slices  map[sliceKey]*slice
	members map[string]*v1alpha1.MemberCluster
	pools   map[string]*v1alpha1.EdgePool
	loads   []heard
}

// maxLoads bounds what waits for a Loop that is stuck: a minute of reports of a hundred edges.
const maxLoads = 6000

func newEvents() events {
	return events{slices: map[sliceKey]*slice{}, members: map[string]*v1alpha1.MemberCluster{}, pools: map[string]*v1alpha1.EdgePool{}}
}

func (e events) empty() bool { return len(e.slices)+len(e.members)+len(e.pools)+len(e.loads) == 0 }

func newIntake() *intake { return &intake{pending: newEvents(), kick: make(chan struct{}, 1)} }

func (in *intake) put(f func(*events)) {
	in.mu.Lock()
	f(&in.pending)
	in.mu.Unlock()
	select {
	case in.kick <- struct{}{}:
	default:
	}
}

func (in *intake) take() events {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.pending
	in.pending = newEvents()
	return out
}

// handler puts the objects of one informer.
func handler[T client.Object](in *intake, put func(events *events, object T, deleted bool)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { in.put(func(e *events) { put(e, o.(T), false) }) },
		UpdateFunc: func(_, o any) { in.put(func(e *events) { put(e, o.(T), false) }) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			in.put(func(e *events) { put(e, o.(T), true) })
		},
	}
}

func (in *intake) sliceHandler() toolscache.ResourceEventHandler {
	return handler(in, func(e *events, s *discoveryv1.EndpointSlice, deleted bool) {
		key := sliceKey(s.Namespace + "/" + s.Name)
		if deleted {
			e.slices[key] = nil
			return
		}
		e.slices[key] = readSlice(s)
	})
}

func (in *intake) memberHandler() toolscache.ResourceEventHandler {
	return handler(in, func(e *events, m *v1alpha1.MemberCluster, deleted bool) {
		name := m.Name
		if deleted {
			m = nil
		}
		e.members[name] = m
	})
}

func (in *intake) poolHandler() toolscache.ResourceEventHandler {
	return handler(in, func(e *events, p *v1alpha1.EdgePool, deleted bool) {
		name := p.Name
		if deleted {
			p = nil
		}
		e.pools[name] = p
	})
}
