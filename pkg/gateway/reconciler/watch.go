package reconciler

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// watch watches every kind that Build reads, and waits until all are read.
func (r *Reconciler) watch(ctx context.Context) error {
	if err := r.imports.index(ctx, r.options.Cache); err != nil {
		return err
	}
	var synced []toolscache.InformerSynced
	for i, kind := range r.kinds {
		informer, err := r.options.Cache.GetInformer(ctx, kind.object, cache.BlockUntilSynced(false)) // all at the same time
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind.object, err)
		}
		registration, err := informer.AddEventHandler(r.handler(i, kind))
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind.object, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("wait for the caches: %w", context.Cause(ctx))
	}
	return nil
}

// handler marks what an event makes stale: one route, the import of one export, or all of another kind.
func (r *Reconciler) handler(i int, kind watchedKind) toolscache.ResourceEventHandler {
	markStale := func(name fleet.ObjectName, o any) {
		r.inbox.Add(func(p *pending) {
			service, isExport := serviceOf(o)
			switch {
			case isExport:
				p.services.Insert(service)
			case kind.route != nil:
				p.routes.Insert(fleet.RouteRef{Kind: kind.route.Kind, Name: name})
			default:
				p.stale[i] = true
			}
		})
	}
	recheck := func(o client.Object) {
		switch kind.reported {
		case "":
		case condition.EdgePool:
			r.options.PoolReporter.Recheck(kind.reported, nameOf(o))
		default:
			r.options.Reporter.Recheck(kind.reported, nameOf(o))
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			recheck(o.(client.Object)) // the last report may be about an older object of this name
			markStale(nameOf(o.(client.Object)), o)
		},
		DeleteFunc: func(o any) {
			if name, err := toolscache.DeletionHandlingObjectToName(o); err == nil {
				markStale(fleet.ObjectName{Namespace: name.Namespace, Name: name.Name}, o)
			}
		},
		UpdateFunc: func(before, after any) {
			old, next := before.(client.Object), after.(client.Object)
			if old.GetResourceVersion() == next.GetResourceVersion() {
				return
			}
			recheck(next)
			if kind.affectsBuild(old, next) {
				markStale(nameOf(next), before) // an export that was made again may be another service's
				markStale(nameOf(next), next)
			}
		},
	}
}

// gather reads what is stale.
func (r *Reconciler) gather(ctx context.Context, p pending) (changed bool, err error) {
	listed, imports := false, false // routes or Gateways; what imports are made of
	for i, kind := range r.kinds {
		if !p.stale[i] {
			continue
		}
		imports = imports || kind.imports
		if kind.list != nil {
			if err := kind.list(ctx, r.options.Cache, &r.input); err != nil {
				return false, fmt.Errorf("list %T: %w", kind.object, err)
			}
		}
		changed, listed = true, listed || kind.rolledOut
		if kind.route != nil { // all of this kind are read
			for ref := range p.routes {
				if ref.Kind == kind.route.Kind {
					p.routes.Delete(ref)
				}
			}
		}
	}
	if listed {
		r.rollout.SetObjects(r.objects())
	}
	if len(p.routes) > 0 {
		routesChanged, err := r.readRoutes(ctx, p.routes)
		if err != nil {
			return false, err
		}
		changed = changed || routesChanged
	}
	// Last, since nobody would tell again what a pass that failed has merged.
	importsChanged, err := r.readImports(ctx, imports, p.services)
	return changed || importsChanged, err
}

// readImports merges all exports, or those of some services, and says whether that changes an import.
func (r *Reconciler) readImports(ctx context.Context, all bool, services sets.Set[fleet.ServiceName]) (changed bool, err error) {
	switch {
	case all:
		return true, r.imports.list(ctx, r.options.Cache, &r.input)
	case len(services) > 0:
		return r.imports.update(ctx, r.options.Cache, &r.input, services)
	}
	return false, nil
}

// readRoutes reads single routes, and says whether that can change a Result. The
// others stay the same values, so that Build sees that they did not change. So do
// those whose status has only what the last Result says: most events are the hub's
// own writes.
func (r *Reconciler) readRoutes(ctx context.Context, refs sets.Set[fleet.RouteRef]) (changed bool, err error) {
	read := make(map[fleet.RouteRef]*gateway.Route, len(refs)) // nil: it does not exist
	for ref := range refs {
		if read[ref], err = r.readRoute(ctx, ref); err != nil {
			return false, err
		}
	}
	routes := slices.Clone(r.input.Routes)
	for ref, route := range read {
		at, found := findRoute(routes, ref)
		if found && route != nil {
			if confirmed, ok := r.result.Confirmation(routes[at], route); ok {
				routes[at] = confirmed
				r.rollout.SetObject(ref, r.objectOf(confirmed))
				continue
			}
		}
		changed = true
		if found {
			routes = slices.Delete(routes, at, at+1)
		}
		if route == nil {
			r.rollout.DeleteObject(ref)
			continue
		}
		routes = slices.Insert(routes, at, route)
		r.rollout.SetObject(ref, r.objectOf(route))
	}
	r.input.Routes = routes
	return changed, nil
}

// readRoute reads one route; nil: it does not exist.
func (r *Reconciler) readRoute(ctx context.Context, ref fleet.RouteRef) (*gateway.Route, error) {
	at := slices.IndexFunc(r.kinds, func(k watchedKind) bool { return k.route != nil && k.route.Kind == ref.Kind })
	kind := r.kinds[at].route
	o := kind.Object.DeepCopyObject().(client.Object)
	switch err := r.options.Cache.Get(ctx, client.ObjectKey(ref.Name), o, client.UnsafeDisableDeepCopy); {
	case err == nil:
		return kind.Route(o), nil
	case apierrors.IsNotFound(err):
		return nil, nil
	default:
		return nil, fmt.Errorf("get %s: %w", ref, err)
	}
}

// objects are the Gateways and routes of the Input.
func (r *Reconciler) objects() map[fleet.ObjectRef]rollout.Object {
	in := &r.input
	objects := make(map[fleet.ObjectRef]rollout.Object, len(in.Routes)+len(in.Gateways))
	for _, route := range in.Routes {
		objects[route.Ref] = r.objectOf(route)
	}
	for i := range in.Gateways {
		ref, o := objectOfGateway(&in.Gateways[i])
		objects[ref] = o
	}
	return objects
}
