package server

import (
	"context"
	"fmt"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

// pending is what changed since the last pass; nil: gone.
type pending struct {
	services map[fleet.ServiceName]*v1alpha1.FleetServiceSpec
	slices   map[memberapi.SliceKey]*discoveryv1.EndpointSlice
	clusters map[string]*v1alpha1.MemberCluster
	pings    []chan<- struct{}
	lost     sets.Set[fleet.ServiceName] // objects of theirs went that nobody saw being deleted
	seen     uint64                      // the last resourceVersion of a slice
}

func newPending() pending {
	return pending{services: map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{}, slices: map[memberapi.SliceKey]*discoveryv1.EndpointSlice{},
		clusters: map[string]*v1alpha1.MemberCluster{}, lost: sets.New[fleet.ServiceName]()}
}

func (p *pending) empty() bool { return len(p.services)+len(p.slices)+len(p.clusters) == 0 }

// watch adds the handlers and waits until each has seen all existing objects.
func (s *Server) watch(ctx context.Context) error {
	var registered []toolscache.InformerSynced
	var slices cache.Informer
	for _, w := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&v1alpha1.MemberCluster{}, s.clusterHandler()},
		{&discoveryv1.EndpointSlice{}, s.sliceHandler()},
		{&v1alpha1.MemberExport{}, toolscache.ResourceEventHandlerFuncs{DeleteFunc: s.noteLost}},
	} {
		informer, err := s.config.Informers.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		r, err := informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		registered = append(registered, r.HasSynced)
		if _, ok := w.object.(*discoveryv1.EndpointSlice); ok {
			slices = informer
		}
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registered...) {
		return fmt.Errorf("wait for the caches: %w", context.Cause(ctx))
	}
	if list, ok := slices.(interface{ LastSyncResourceVersion() string }); ok {
		s.listed.Store(versionOf(list.LastSyncResourceVersion()))
		s.setRead(func() uint64 { return versionOf(list.LastSyncResourceVersion()) })
	}
	return nil
}

// everyService is in place of a name where nobody knows whose objects were lost.
var everyService fleet.ServiceName

// noteLost notes a deletion that a list shows and no event: so it is when etcd was
// restored from a backup. Agents soon push again what it lacks.
func (s *Server) noteLost(o any) {
	last, lost := o.(toolscache.DeletedFinalStateUnknown)
	if !lost {
		return
	}
	service := everyService
	switch object := last.Obj.(type) {
	case *v1alpha1.MemberExport:
		service = fleet.ServiceName(object.Spec.Service)
	case *discoveryv1.EndpointSlice:
		var ok bool
		if _, service, ok = registration.SourceOf(object); !ok {
			return // nobody was ever told of it
		}
	}
	s.inbox.Add(func(p *pending) { p.lost.Insert(service) })
}

// clusterHandler ignores what changes neither a spec nor who is let in: most updates are the hub's own, of the status.
func (s *Server) clusterHandler() toolscache.ResourceEventHandler {
	set := func(name string, m *v1alpha1.MemberCluster) {
		s.inbox.Add(func(p *pending) { p.clusters[name] = m })
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { set(o.(*v1alpha1.MemberCluster).Name, o.(*v1alpha1.MemberCluster)) },
		UpdateFunc: func(before, after any) {
			old, next := before.(*v1alpha1.MemberCluster), after.(*v1alpha1.MemberCluster)
			if old.UID != next.UID || old.Generation != next.Generation || old.DeletionTimestamp.IsZero() != next.DeletionTimestamp.IsZero() ||
				!apiequality.Semantic.DeepEqual(old.Status.Credential, next.Status.Credential) {
				set(next.Name, next)
			}
		},
		DeleteFunc: func(o any) {
			s.noteLost(o)
			if name, err := toolscache.DeletionHandlingObjectToName(o); err == nil {
				set(name.Name, nil)
			}
		},
	}
}

// sliceHandler takes slices of members alone: those of the hub's own cluster are many.
func (s *Server) sliceHandler() toolscache.ResourceEventHandler {
	set := func(key memberapi.SliceKey, slice *discoveryv1.EndpointSlice, version string) {
		if _, ofMember := v1alpha1.MemberOfNamespace(key.Namespace); ofMember {
			seen := versionOf(version)
			s.inbox.Add(func(p *pending) { p.slices[key], p.seen = slice, max(p.seen, seen) })
		}
	}
	keyOf := func(o *discoveryv1.EndpointSlice) memberapi.SliceKey {
		return memberapi.SliceKey{Namespace: o.Namespace, Name: o.Name}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			slice := o.(*discoveryv1.EndpointSlice)
			set(keyOf(slice), slice, slice.ResourceVersion)
		},
		UpdateFunc: func(before, after any) {
			if old, next := before.(*discoveryv1.EndpointSlice), after.(*discoveryv1.EndpointSlice); old.ResourceVersion != next.ResourceVersion {
				set(keyOf(next), next, next.ResourceVersion)
			}
		},
		DeleteFunc: func(o any) {
			if name, err := toolscache.DeletionHandlingObjectToName(o); err == nil {
				if _, ofMember := v1alpha1.MemberOfNamespace(name.Namespace); ofMember {
					s.noteLost(o)
				}
				version := "" // of a deletion that nobody saw
				if gone, ok := o.(*discoveryv1.EndpointSlice); ok {
					version = gone.ResourceVersion
				}
				set(memberapi.SliceKey{Namespace: name.Namespace, Name: name.Name}, nil, version)
			}
		},
	}
}

// versionOf is a resourceVersion of the hub's API server as a number, which it is (KEP-5504).
func versionOf(resourceVersion string) uint64 {
	version, _ := strconv.ParseUint(resourceVersion, 10, 64)
	return version
}
