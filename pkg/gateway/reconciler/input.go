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
	// single: what changed is read alone, and the rest stays the object that it
	// was, so that Build sees that it is the same.
	single bool
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
	return []feed{
		{object: &gatewayv1.GatewayClass{}, matters: specChanged, judged: condition.GatewayClass,
			read: listInto(func(in *gateway.Input, l *gatewayv1.GatewayClassList) { in.GatewayClasses = l.Items })},
		{object: &gatewayv1.Gateway{}, matters: gatewayChanged, judged: condition.Gateway,
			read: listInto(func(in *gateway.Input, l *gatewayv1.GatewayList) { in.Gateways = l.Items })},
		{object: &v1alpha1.GatewayParameters{}, matters: specChanged,
			read: listInto(func(in *gateway.Input, l *v1alpha1.GatewayParametersList) { in.Parameters = l.Items })},
		{object: &gatewayv1.HTTPRoute{}, matters: routeChanged, judged: condition.HTTPRoute, single: true, read: listInto(listRoutes)},
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
}

// listRoutes gives routes by name.
func listRoutes(in *gateway.Input, l *gatewayv1.HTTPRouteList) {
	in.Routes = make([]*gatewayv1.HTTPRoute, len(l.Items))
	for i := range l.Items {
		in.Routes[i] = &l.Items[i]
	}
	slices.SortFunc(in.Routes, func(a, b *gatewayv1.HTTPRoute) int { return nameOf(a).Compare(nameOf(b)) })
}

// findRoute finds a route in a list by name, or where it would be.
func findRoute(routes []*gatewayv1.HTTPRoute, name fleet.ObjectName) (at int, found bool) {
	return slices.BinarySearchFunc(routes, name, func(r *gatewayv1.HTTPRoute, name fleet.ObjectName) int { return nameOf(r).Compare(name) })
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

func routeChanged(before, after client.Object) bool {
	old, next := before.(*gatewayv1.HTTPRoute), after.(*gatewayv1.HTTPRoute)
	if specChanged(before, after) || ours(old) != ours(next) { // who has a status of ours is told when its Gateway goes
		return true
	}
	was, wasRefused := refusedByEdge(old)
	is, isRefused := refusedByEdge(next)
	return was != is || wasRefused != isRefused
}

// gatewayChanged: an address that was told is kept.
func gatewayChanged(before, after client.Object) bool {
	return specChanged(before, after) || !equality.Semantic.DeepEqual(before.(*gatewayv1.Gateway).Status.Addresses, after.(*gatewayv1.Gateway).Status.Addresses)
}

func ours(route *gatewayv1.HTTPRoute) bool {
	return slices.ContainsFunc(route.Status.Parents, func(p gatewayv1.RouteParentStatus) bool { return p.ControllerName == v1alpha1.GatewayController })
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
func refusedByEdge(route *gatewayv1.HTTPRoute) (words string, refused bool) {
	for c := range acceptedConditions(route) {
		if c.Status == metav1.ConditionFalse && c.Reason == condition.RefusedByEdge {
			return strings.TrimPrefix(c.Message, condition.RouteRefusedByEdge("").Message), true
		}
	}
	return "", false
}

// acceptedBefore says whether a status from before this process accepts the
// route as it is now.
func acceptedBefore(route *gatewayv1.HTTPRoute) bool {
	for c := range acceptedConditions(route) {
		if c.Status == metav1.ConditionTrue {
			return true
		}
	}
	return false
}

// acceptedConditions are our conditions Accepted about the present generation.
func acceptedConditions(route *gatewayv1.HTTPRoute) iter.Seq[*metav1.Condition] {
	return func(yield func(*metav1.Condition) bool) {
		for i := range route.Status.Parents {
			p := &route.Status.Parents[i]
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
