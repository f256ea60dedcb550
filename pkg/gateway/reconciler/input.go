package reconciler

import (
	"context"
	"maps"
	"slices"

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
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// watchedKind is one kind of object that Build reads.
type watchedKind struct {
	object client.Object
	// list lists the kind into the Input, without copying: the objects are the
	// cache's own, and nobody changes them.
	// Nil: only imports are made of it.
	list func(context.Context, client.Reader, *gateway.Input) error
	// imports: the imports of the Input are merged from this kind, too.
	imports bool
	// affectsBuild reports whether an update changes a Result of Build. Most
	// updates are our own writes to a status.
	affectsBuild func(before, after client.Object) bool
	// reported is the kind if there are reports on its status; otherwise empty.
	reported condition.Kind
	// rolledOut: edges answer for the objects of this kind (rollout.Object).
	rolledOut bool
	// route is set for a kind of route. Of those, only the changed ones are read
	// again.
	route *gateway.RouteKind
}

// listInto makes a watchedKind.list from a function that sets the list.
func listInto[L any, P interface {
	*L
	client.ObjectList
}](into func(*gateway.Input, *L)) func(context.Context, client.Reader, *gateway.Input) error {
	return func(ctx context.Context, reader client.Reader, in *gateway.Input) error {
		list := new(L)
		if err := reader.List(ctx, P(list), client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
		into(in, list)
		return nil
	}
}

// watchedKinds are all kinds that Build reads.
func watchedKinds(exported *imports) []watchedKind {
	all := []watchedKind{
		{object: &gatewayv1.GatewayClass{}, affectsBuild: specChanged, reported: condition.GatewayClass,
			list: listInto(func(in *gateway.Input, l *gatewayv1.GatewayClassList) { in.GatewayClasses = l.Items })},
		{object: &gatewayv1.Gateway{}, affectsBuild: gatewayChanged, reported: condition.Gateway, rolledOut: true,
			list: listInto(func(in *gateway.Input, l *gatewayv1.GatewayList) { in.Gateways = l.Items })},
		{object: &v1alpha1.GatewayParameters{}, affectsBuild: specChanged,
			list: listInto(func(in *gateway.Input, l *v1alpha1.GatewayParametersList) { in.Parameters = l.Items })},
		{object: &gatewayv1beta1.ReferenceGrant{}, affectsBuild: specChanged,
			list: listInto(func(in *gateway.Input, l *gatewayv1beta1.ReferenceGrantList) { in.Grants = l.Items })},
		{object: &corev1.Namespace{}, affectsBuild: labelsChanged, imports: true,
			list: listInto(func(in *gateway.Input, l *corev1.NamespaceList) { in.Namespaces = l.Items })},
		{object: &corev1.Secret{}, affectsBuild: secretChanged,
			list: listInto(func(in *gateway.Input, l *corev1.SecretList) { in.Secrets = l.Items })},
		{object: &v1alpha1.MemberExport{}, affectsBuild: exported.exportChanged, imports: true},
		{object: &v1alpha1.MemberCluster{}, affectsBuild: acceptanceChanged, imports: true},
		{object: &mcsv1beta1.ServiceImport{}, affectsBuild: never,
			list: listInto(func(in *gateway.Input, l *mcsv1beta1.ServiceImportList) { in.ServiceImports = l.Items })},
		{object: &corev1.Service{}, affectsBuild: serviceChanged,
			list: listInto(func(in *gateway.Input, l *corev1.ServiceList) { in.Services = l.Items })},
		{object: &v1alpha1.BackendPolicy{}, affectsBuild: specChanged, reported: condition.BackendPolicy,
			list: listInto(func(in *gateway.Input, l *v1alpha1.BackendPolicyList) { in.Policies = l.Items })},
		{object: &v1alpha1.EdgePool{}, affectsBuild: poolChanged, reported: condition.EdgePool,
			list: listInto(func(in *gateway.Input, l *v1alpha1.EdgePoolList) { in.Pools = l.Items })},
	}
	for _, kind := range gateway.RouteKinds() {
		all = append(all, watchedRoutes(kind))
	}
	return all
}

// watchedRoutes is one kind of route.
func watchedRoutes(kind gateway.RouteKind) watchedKind {
	return watchedKind{object: kind.Object, list: listRoutes(kind), affectsBuild: routeChanged(kind), reported: kind.Kind, rolledOut: true, route: &kind}
}

// listRoutes reads all routes of one kind. Input.Routes is in the order of Ref.
func listRoutes(kind gateway.RouteKind) func(context.Context, client.Reader, *gateway.Input) error {
	return func(ctx context.Context, reader client.Reader, in *gateway.Input) error {
		list := kind.List.DeepCopyObject().(client.ObjectList)
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
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

// never is for kinds of which only the existence of an object counts.
func never(_, _ client.Object) bool { return false }

func labelsChanged(before, after client.Object) bool {
	return !maps.Equal(before.GetLabels(), after.GetLabels())
}

// specChanged is for kinds that have a generation.
func specChanged(before, after client.Object) bool {
	return before.GetUID() != after.GetUID() || before.GetGeneration() != after.GetGeneration() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

func routeChanged(kind gateway.RouteKind) func(before, after client.Object) bool {
	return func(before, after client.Object) bool {
		old, next := kind.Route(before), kind.Route(after)
		// Build reports on a route with our status, whatever its parents, and admits what is accepted first.
		return specChanged(before, after) || old.HasOurStatus() != next.HasOurStatus() || !slices.Equal(old.AcceptedBy(), next.AcceptedBy())
	}
}

// gatewayChanged counts addresses too, because a Gateway keeps an address that its status has.
func gatewayChanged(before, after client.Object) bool {
	return specChanged(before, after) || !equality.Semantic.DeepEqual(before.(*gatewayv1.Gateway).Status.Addresses, after.(*gatewayv1.Gateway).Status.Addresses)
}

func secretChanged(before, after client.Object) bool {
	old, next := before.(*corev1.Secret), after.(*corev1.Secret)
	return old.UID != next.UID || old.Type != next.Type || !equality.Semantic.DeepEqual(old.Data, next.Data)
}

func serviceChanged(before, after client.Object) bool {
	old, next := before.(*corev1.Service), after.(*corev1.Service)
	return old.UID != next.UID || !equality.Semantic.DeepEqual(old.Spec, next.Spec)
}

func poolChanged(before, after client.Object) bool {
	return specChanged(before, after) || !equality.Semantic.DeepEqual(
		before.(*v1alpha1.EdgePool).Status.Allocations, after.(*v1alpha1.EdgePool).Status.Allocations)
}

// objectOfRoute is a route as the rollout takes it.
func objectOfRoute(route *gateway.Route) rollout.Object {
	return rollout.Object{ObjectVersion: rollout.ObjectVersion{UID: route.UID, Generation: route.Generation}, Accepted: isAccepted(route), Source: route}
}

// objectOfGateway is a Gateway as the rollout takes it.
func objectOfGateway(g *gatewayv1.Gateway) (fleet.ObjectRef, rollout.Object) {
	c := meta.FindStatusCondition(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
	return fleet.ObjectRef{Kind: condition.Gateway, Name: nameOf(g)}, rollout.Object{
		ObjectVersion: rollout.ObjectVersion{UID: g.UID, Generation: g.Generation},
		Accepted:      c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == g.Generation,
	}
}

// isAccepted reports whether a route's status accepts its present generation.
func isAccepted(route *gateway.Route) bool {
	return slices.ContainsFunc(route.Status, func(p gatewayv1.RouteParentStatus) bool {
		c := meta.FindStatusCondition(p.Conditions, string(gatewayv1.RouteConditionAccepted))
		return p.ControllerName == v1alpha1.GatewayController && c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == route.Generation
	})
}
