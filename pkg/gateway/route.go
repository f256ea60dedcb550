package gateway

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Route is a route of any kind, in the form that Build uses. The adapter of its
// kind makes it. It is immutable, and so is the object that it was made of.
type Route struct {
	Ref        fleet.RouteRef
	UID        types.UID
	Generation int64
	Created    metav1.Time
	ParentRefs []gatewayv1.ParentReference
	Status     []gatewayv1.RouteParentStatus // of all controllers

	source  routeSource
	present *Route // InsteadOf; nil: the Route is the present version itself
	earlier *Route // WithEarlier; nil: none is known
}

// routeSource is the object that a Route was made of. Its identity (==) is that of
// one version of the object: the Memo uses it as a key.
type routeSource interface {
	RouteObject
	// plan reads the object's spec. It is a function of the object alone.
	plan() *routePlan
}

// newRoute makes a Route from the fields that all kinds of routes have.
func newRoute(kind fleet.Kind, o metav1.Object, parentRefs []gatewayv1.ParentReference, status gatewayv1.RouteStatus, source routeSource) *Route {
	return &Route{
		Ref: fleet.RouteRef{Kind: kind, Name: fleet.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}},
		UID: o.GetUID(), Generation: o.GetGeneration(), Created: o.GetCreationTimestamp(),
		ParentRefs: parentRefs, Status: status.Parents, source: source,
	}
}

// Object is the object that the Route was made of.
func (r *Route) Object() RouteObject { return r.source }

// HasOurStatus says whether the route's status has an entry of our controller.
func (r *Route) HasOurStatus() bool {
	return slices.ContainsFunc(r.Status, func(p gatewayv1.RouteParentStatus) bool { return p.ControllerName == v1alpha1.GatewayController })
}

// hasCondition says whether the route's status has a condition towards a Gateway of ours.
func (r *Route) hasCondition(conditionType string, gateway fleet.ObjectName) bool {
	return slices.ContainsFunc(r.Status, func(p gatewayv1.RouteParentStatus) bool {
		return p.ControllerName == v1alpha1.GatewayController && parentName(r.Ref, &p.ParentRef) == gateway && meta.IsStatusConditionTrue(p.Conditions, conditionType)
	})
}

// RouteObject is the Kubernetes object of a route.
type RouteObject interface {
	metav1.Object
	runtime.Object
}

// RouteList is a list of RouteObjects.
type RouteList interface {
	metav1.ListInterface
	runtime.Object
}

// RouteKind is a kind of route that Build supports. The table of RouteKinds
// decides which listeners a route may attach to, which kinds are watched and read,
// and how an object becomes a Route.
type RouteKind struct {
	Kind fleet.Kind
	// Object and List are empty; their copies are read into.
	Object RouteObject
	List   RouteList

	protocols []model.Protocol // of the listeners that it may attach to
	adapt     func(RouteObject) *Route
}

// routeKinds are all kinds of routes. A kind needs a line here, an adapter
// file, and a line in the table of condition/writer.
var routeKinds = []RouteKind{
	NewRouteKind(condition.HTTPRoute, &gatewayv1.HTTPRouteList{}, FromHTTPRoute, model.HTTP, model.HTTPS),
}

// RouteKinds are all kinds of routes that Build supports.
func RouteKinds() []RouteKind { return slices.Clone(routeKinds) }

// NewRouteKind makes a RouteKind. Routes of this kind may attach to listeners of
// the protocols.
func NewRouteKind[T any, O interface {
	*T
	RouteObject
}](kind fleet.Kind, list RouteList, adapt func(O) *Route, protocols ...model.Protocol) RouteKind {
	return RouteKind{
		Kind: kind, Object: O(new(T)), List: list, protocols: protocols,
		adapt: func(o RouteObject) *Route { return adapt(o.(O)) },
	}
}

// Route makes the Route of an object of this kind.
func (k RouteKind) Route(o RouteObject) *Route { return k.adapt(o) }

// kindsFor are the kinds of routes that may attach to listeners of a protocol.
func kindsFor(protocol model.Protocol) []string {
	var kinds []string
	for _, k := range routeKinds {
		if slices.Contains(k.protocols, protocol) {
			kinds = append(kinds, string(k.Kind))
		}
	}
	return kinds
}
