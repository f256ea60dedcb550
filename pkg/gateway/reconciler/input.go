package reconciler

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
)

// feed is one kind of object that Build reads.
type feed struct {
	object client.Object
	// read lists the kind into the Input, without copying: the objects are the
	// cache's own and are only read.
	read func(context.Context, client.Reader, *gateway.Input) error
	// matters says whether an update changes what Build says. Most of them are
	// our own writes to a status.
	matters func(before, after client.Object) bool
	// judged is the kind whose status Build reports on; empty: none.
	judged condition.Kind
	// route is set for a kind of route. A route that changed is read alone, and
	// the others stay what they were, so that Build sees that they are the same.
	route *gateway.RouteKind
}

// shared reads what the cache holds itself.
var shared = client.UnsafeDisableDeepCopy

// listInto reads one kind and hands over the list.
func listInto[L any, P interface {
	*L
	client.ObjectList
}](into func(*gateway.Input, *L)) func(context.Context, client.Reader, *gateway.Input) error {
	return func(ctx context.Context, reader client.Reader, in *gateway.Input) error {
		list := new(L)
		if err := reader.List(ctx, P(list), shared); err != nil {
			return err
		}
		into(in, list)
		return nil
	}
}

// feeds are all that Build reads.
func feeds() []feed {
	all := []feed{
		{object: &gatewayv1.GatewayClass{}, matters: specChanged, judged: condition.GatewayClass,
			read: listInto(func(in *gateway.Input, l *gatewayv1.GatewayClassList) { in.GatewayClasses = l.Items })},
		{object: &gatewayv1.Gateway{}, matters: gatewayChanged, judged: condition.Gateway,
			read: listInto(func(in *gateway.Input, l *gatewayv1.GatewayList) { in.Gateways = l.Items })},
		{object: &v1alpha1.GatewayParameters{}, matters: specChanged,
			read: listInto(func(in *gateway.Input, l *v1alpha1.GatewayParametersList) { in.Parameters = l.Items })},
		{object: &gatewayv1beta1.ReferenceGrant{}, matters: specChanged,
			read: listInto(func(in *gateway.Input, l *gatewayv1beta1.ReferenceGrantList) { in.Grants = l.Items })},
		{object: &corev1.Namespace{}, matters: labelsChanged,
			read: listInto(func(in *gateway.Input, l *corev1.NamespaceList) { in.Namespaces = l.Items })},
		{object: &corev1.Secret{}, matters: secretChanged,
			read: listInto(func(in *gateway.Input, l *corev1.SecretList) { in.Secrets = l.Items })},
		{object: &v1alpha1.FleetService{}, matters: specChanged,
			read: listInto(func(in *gateway.Input, l *v1alpha1.FleetServiceList) { in.Imports = l.Items })},
		{object: &mcsv1beta1.ServiceImport{}, matters: never,
			read: listInto(func(in *gateway.Input, l *mcsv1beta1.ServiceImportList) { in.ServiceImports = l.Items })},
		{object: &corev1.Service{}, matters: serviceChanged,
			read: listInto(func(in *gateway.Input, l *corev1.ServiceList) { in.Services = l.Items })},
		{object: &v1alpha1.BackendPolicy{}, matters: specChanged, judged: condition.BackendPolicy,
			read: listInto(func(in *gateway.Input, l *v1alpha1.BackendPolicyList) { in.Policies = l.Items })},
		{object: &v1alpha1.EdgePool{}, matters: poolChanged,
			read: listInto(func(in *gateway.Input, l *v1alpha1.EdgePoolList) { in.Pools = l.Items })},
	}
	for _, kind := range gateway.RouteKinds() {
		all = append(all, routeFeed(kind))
	}
	return all
}

// routeFeed is one kind of route.
func routeFeed(kind gateway.RouteKind) feed {
	return feed{object: kind.Object, matters: routeChanged(kind), judged: kind.Kind, route: &kind, read: listRoutes(kind)}
}

// listRoutes reads all routes of one kind. Input.Routes is in the order of Ref.
func listRoutes(kind gateway.RouteKind) func(context.Context, client.Reader, *gateway.Input) error {
	return func(ctx context.Context, reader client.Reader, in *gateway.Input) error {
		list := kind.List.DeepCopyObject().(client.ObjectList)
		if err := reader.List(ctx, list, shared); err != nil {
			return err
		}
		routes := slices.DeleteFunc(slices.Clone(in.Routes), func(r *gateway.Route) bool { return r.Ref.Kind == kind.Kind })
		err := meta.EachListItem(list, func(o runtime.Object) error {
			routes = append(routes, kind.Route(o.(client.Object)))
			return nil
		})
		slices.SortFunc(routes, func(a, b *gateway.Route) int { return a.Ref.Compare(b.Ref) })
		in.Routes = routes
		return err
	}
}

// findRoute finds a route in a list in the order of Ref, or where it would be.
func findRoute(routes []*gateway.Route, ref fleet.RouteRef) (at int, found bool) {
	return slices.BinarySearchFunc(routes, ref, func(r *gateway.Route, ref fleet.RouteRef) int { return r.Ref.Compare(ref) })
}

func nameOf(o client.Object) fleet.ObjectName {
	return fleet.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// never: only whether the object exists counts.
func never(_, _ client.Object) bool { return false }

func labelsChanged(before, after client.Object) bool {
	return !maps.Equal(before.GetLabels(), after.GetLabels())
}

// specChanged is for kinds whose generation the API server counts.
func specChanged(before, after client.Object) bool {
	return before.GetUID() != after.GetUID() || before.GetGeneration() != after.GetGeneration() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

func routeChanged(kind gateway.RouteKind) func(before, after client.Object) bool {
	return func(before, after client.Object) bool {
		old, next := kind.Route(before), kind.Route(after)
		if specChanged(before, after) || old.HasOurStatus() != next.HasOurStatus() { // Build reports on a route with our status, whatever its parents
			return true
		}
		was, wasRefused := refusedByEdge(old)
		is, isRefused := refusedByEdge(next)
		return was != is || wasRefused != isRefused
	}
}

// gatewayChanged: an address that was told is kept.
func gatewayChanged(before, after client.Object) bool {
	return specChanged(before, after) || !equality.Semantic.DeepEqual(before.(*gatewayv1.Gateway).Status.Addresses, after.(*gatewayv1.Gateway).Status.Addresses)
}

func secretChanged(before, after client.Object) bool {
	was, is := before.(*corev1.Secret), after.(*corev1.Secret)
	return was.UID != is.UID || was.Type != is.Type || !equality.Semantic.DeepEqual(was.Data, is.Data)
}

func serviceChanged(before, after client.Object) bool {
	was, is := before.(*corev1.Service), after.(*corev1.Service)
	return was.UID != is.UID || !equality.Semantic.DeepEqual(was.Spec, is.Spec)
}

func poolChanged(before, after client.Object) bool {
	return specChanged(before, after) || !equality.Semantic.DeepEqual(
		before.(*v1alpha1.EdgePool).Status.Allocations, after.(*v1alpha1.EdgePool).Status.Allocations)
}

// refusedByEdge reads from a route's status that an edge refused it at its
// present generation, in which words: the only memory of a NACK that outlives
// a process.
func refusedByEdge(route *gateway.Route) (words string, refused bool) {
	for c := range acceptedConditions(route) {
		if c.Status == metav1.ConditionFalse && c.Reason == condition.RefusedByEdge {
			return strings.TrimPrefix(c.Message, condition.RouteRefusedByEdge("").Message), true
		}
	}
	return "", false
}

// acceptedBefore says whether a status from before this process accepts the
// route as it is now.
func acceptedBefore(route *gateway.Route) bool {
	for c := range acceptedConditions(route) {
		if c.Status == metav1.ConditionTrue {
			return true
		}
	}
	return false
}

// acceptedConditions are our conditions Accepted about the present generation.
func acceptedConditions(route *gateway.Route) iter.Seq[*metav1.Condition] {
	return func(yield func(*metav1.Condition) bool) {
		for i := range route.Status {
			p := &route.Status[i]
			if p.ControllerName != v1alpha1.GatewayController {
				continue
			}
			c := meta.FindStatusCondition(p.Conditions, string(gatewayv1.RouteConditionAccepted))
			if c != nil && c.ObservedGeneration == route.Generation && !yield(c) {
				return
			}
		}
	}
}
