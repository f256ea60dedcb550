package rollout

import (
	"cmp"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// ResourceID names an Envoy resource, whatever its version.
type ResourceID struct{ TypeURL, Name string }

func idOf(r *envoy.Resource) ResourceID { return ResourceID{r.TypeURL, r.Name} }

// Type is the last part of the type URL, like "Listener".
func (id ResourceID) Type() string { return id.TypeURL[strings.LastIndexByte(id.TypeURL, '.')+1:] }

// String gives "Type name".
func (id ResourceID) String() string { return id.Type() + " " + id.Name }

func (id ResourceID) compare(other ResourceID) int {
	return cmp.Or(cmp.Compare(id.TypeURL, other.TypeURL), cmp.Compare(id.Name, other.Name))
}

// isRoute tells routes from the other sources of a resource.
func isRoute(ref fleet.ObjectRef) bool {
	return ref.Kind != envoy.GatewayKind && ref.Kind != envoy.SecretKind
}

// routesOf are the routes that a resource was made of.
func routesOf(r *envoy.Resource) []fleet.RouteRef {
	var routes []fleet.RouteRef
	for _, ref := range r.Sources {
		if isRoute(ref) {
			routes = append(routes, ref)
		}
	}
	return routes
}

// resource is what an edge should have under a name, or nil.
func (p *pool) resource(e *edge, id ResourceID) *envoy.Resource {
	for _, resources := range []envoy.Resources{p.overlays[e.view], p.snapshot.Resources} {
		for r := range resourcesIn(resources) {
			if idOf(r) == id {
				return r
			}
		}
	}
	return nil
}
