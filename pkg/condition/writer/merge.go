package writer

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// longestMessage is what metav1.Condition allows.
const longestMessage = 32768

// sourced is one source's report on an object.
type sourced struct {
	source *Source
	report condition.Report
}

func sortSourced(reports []sourced) {
	slices.SortFunc(reports, func(a, b sourced) int { return cmp.Compare(a.source.name, b.source.name) })
}

// newObject is an empty object of a kind, to read into.
func newObject(kind condition.Kind) (client.Object, error) {
	switch kind {
	case condition.GatewayClass:
		return &gatewayv1.GatewayClass{}, nil
	case condition.Gateway:
		return &gatewayv1.Gateway{}, nil
	case condition.HTTPRoute:
		return &gatewayv1.HTTPRoute{}, nil
	case condition.BackendPolicy:
		return &v1alpha1.BackendPolicy{}, nil
	}
	return nil, fmt.Errorf("the status of kind %s is not written here", kind)
}

// apply changes the object's status to what the reports want, and says whether
// that changed it. Reports of an older generation than what is stored, or of a
// generation that the object does not have yet (it was deleted and made again),
// are left out.
func apply(o client.Object, reports []sourced, now metav1.Time) bool {
	reports = slices.DeleteFunc(slices.Clone(reports), func(r sourced) bool {
		return r.report.Ref.Generation > o.GetGeneration() || newerStored(o, r)
	})
	if len(reports) == 0 {
		return false
	}
	before := o.DeepCopyObject()
	switch o := o.(type) {
	case *gatewayv1.GatewayClass:
		applyGatewayClass(o, reports, now)
	case *gatewayv1.Gateway:
		applyGateway(o, reports, now)
	case *gatewayv1.HTTPRoute:
		o.Status.Parents = mergeParents(o.Status.Parents, reports, now)
	case *v1alpha1.BackendPolicy:
		o.Status.Ancestors = mergeAncestors(o.Status.Ancestors, reports, now)
	}
	return !equality.Semantic.DeepEqual(before, o)
}

// newerStored says whether a condition of the source's types was stored from a
// newer generation of the object than the report's. A stored generation beyond
// the object's own is nobody's (a restored backup) and does not count.
func newerStored(o client.Object, r sourced) bool {
	return slices.ContainsFunc(conditionsOf(o), func(c metav1.Condition) bool {
		return r.source.types[c.Type] && c.ObservedGeneration > r.report.Ref.Generation && c.ObservedGeneration <= o.GetGeneration()
	})
}

// conditionsOf are all conditions of an object that are ours to write.
func conditionsOf(o client.Object) []metav1.Condition {
	switch o := o.(type) {
	case *gatewayv1.GatewayClass:
		return o.Status.Conditions
	case *gatewayv1.Gateway:
		all := slices.Clone(o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			all = append(all, l.Conditions...)
		}
		return all
	case *gatewayv1.HTTPRoute:
		var all []metav1.Condition
		for _, p := range o.Status.Parents {
			if p.ControllerName == v1alpha1.GatewayController {
				all = append(all, p.Conditions...)
			}
		}
		return all
	case *v1alpha1.BackendPolicy:
		var all []metav1.Condition
		for _, a := range o.Status.Ancestors {
			if a.ControllerName == v1alpha1.GatewayController {
				all = append(all, a.Conditions...)
			}
		}
		return all
	}
	return nil
}

// verdict is what one source says in one list of conditions. Nothing said
// takes the source's conditions away.
type verdict struct {
	source     *Source
	generation int64
	conditions []condition.Condition
}

// mergeConditions brings a list to the verdicts and leaves every type that is
// no source's as it is. lastTransitionTime changes with the status only.
func mergeConditions(list *[]metav1.Condition, verdicts []verdict, now metav1.Time) {
	for _, v := range verdicts {
		for _, c := range v.conditions {
			meta.SetStatusCondition(list, metav1.Condition{
				Type: c.Type, Status: c.Status, Reason: c.Reason, Message: shorten(c.Message),
				ObservedGeneration: v.generation, LastTransitionTime: now,
			})
		}
		*list = slices.DeleteFunc(*list, func(stored metav1.Condition) bool {
			return v.source.types[stored.Type] &&
				!slices.ContainsFunc(v.conditions, func(c condition.Condition) bool { return c.Type == stored.Type })
		})
	}
}

func mergeReports(list *[]metav1.Condition, reports []sourced, now metav1.Time) {
	verdicts := make([]verdict, len(reports))
	for i, r := range reports {
		verdicts[i] = verdict{r.source, r.report.Ref.Generation, r.report.Conditions}
	}
	mergeConditions(list, verdicts, now)
}

// shorten cuts a message to what the API allows, at a rune's edge.
func shorten(message string) string {
	if len(message) <= longestMessage {
		return message
	}
	cut := longestMessage
	for cut > 0 && message[cut]&0xC0 == 0x80 { // inside a UTF-8 sequence
		cut--
	}
	return message[:cut]
}
