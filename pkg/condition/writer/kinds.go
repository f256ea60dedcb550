package writer

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// statusKind is how the status of one kind of object is read and written.
type statusKind struct {
	object     client.Object                               // empty; its copies are read into
	conditions func(client.Object) []metav1.Condition      // of our part of the status
	merge      func(client.Object, []sourced, metav1.Time) // updates the status to the reports
}

// kinds are the kinds of objects whose status the writer writes.
var kinds = map[condition.Kind]statusKind{
	condition.GatewayClass:  newKind(classConditions, mergeGatewayClass),
	condition.Gateway:       newKind(gatewayConditions, mergeGateway),
	condition.HTTPRoute:     routeKind(func(o *gatewayv1.HTTPRoute) *gatewayv1.RouteStatus { return &o.Status.RouteStatus }),
	condition.BackendPolicy: policyKind(func(o *v1alpha1.BackendPolicy) *gatewayv1.PolicyStatus { return &o.Status }),
	condition.EdgePool:      newKind(poolConditions, mergeEdgePool),
}

func newKind[T any, O interface {
	*T
	client.Object
}](conditions func(O) []metav1.Condition, merge func(O, []sourced, metav1.Time)) statusKind {
	return statusKind{
		object:     O(new(T)),
		conditions: func(o client.Object) []metav1.Condition { return conditions(o.(O)) },
		merge:      func(o client.Object, reports []sourced, now metav1.Time) { merge(o.(O), reports, now) },
	}
}

// routeKind is the statusKind of a kind of route, whose status is a list of parents.
func routeKind[T any, O interface {
	*T
	client.Object
}](status func(O) *gatewayv1.RouteStatus) statusKind {
	return newKind(
		func(o O) []metav1.Condition { return ourConditions(status(o).Parents, parentFields) },
		func(o O, reports []sourced, now metav1.Time) {
			status(o).Parents = mergeEntries(status(o).Parents, reports, parentFields, now)
		})
}

// policyKind is the statusKind of a kind of policy, whose status is a list of
// ancestors (GEP-713).
func policyKind[T any, O interface {
	*T
	client.Object
}](status func(O) *gatewayv1.PolicyStatus) statusKind {
	return newKind(
		func(o O) []metav1.Condition { return ourConditions(status(o).Ancestors, ancestorFields) },
		func(o O, reports []sourced, now metav1.Time) {
			status(o).Ancestors = mergeEntries(status(o).Ancestors, reports, ancestorFields, now)
		})
}

// newObject is an empty object of a kind, to read into.
func newObject(kind condition.Kind) (client.Object, error) {
	k, found := kinds[kind]
	if !found {
		return nil, fmt.Errorf("the status of kind %s is not written here", kind)
	}
	return k.object.DeepCopyObject().(client.Object), nil
}

// apply updates the object's status to the reports, and says whether that changed
// it. It ignores reports of an older generation than the stored conditions', and
// reports of a generation that the object does not have yet (it was deleted and
// created again).
func apply(kind condition.Kind, o client.Object, reports []sourced, now metav1.Time) bool {
	k := kinds[kind]
	reports = slices.DeleteFunc(slices.Clone(reports), func(r sourced) bool {
		return r.report.Ref.Generation > o.GetGeneration() || k.newerStored(o, r)
	})
	if len(reports) == 0 {
		return false
	}
	before := o.DeepCopyObject()
	k.merge(o, reports, now)
	return !equality.Semantic.DeepEqual(before, o)
}

// newerStored says whether a stored condition of the source's types is of a newer
// generation of the object than the report. A stored generation beyond the object's
// own does not count: it comes from a restored backup.
func (k statusKind) newerStored(o client.Object, r sourced) bool {
	return slices.ContainsFunc(k.conditions(o), func(c metav1.Condition) bool {
		return r.source.types[c.Type] && c.ObservedGeneration > r.report.Ref.Generation && c.ObservedGeneration <= o.GetGeneration()
	})
}
