package writer

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// entry is one parent of a route or one ancestor of a policy, with the conditions
// that sources report for it.
type entry struct {
	ref      gatewayv1.ParentReference
	reported []sourceConditions
}

// entryFields are the fields of a stored entry, whatever its type.
type entryFields struct {
	ref        *gatewayv1.ParentReference
	controller *gatewayv1.GatewayController
	conditions *[]metav1.Condition
}

func parentFields(p *gatewayv1.RouteParentStatus) entryFields {
	return entryFields{&p.ParentRef, &p.ControllerName, &p.Conditions}
}

func ancestorFields(a *gatewayv1.PolicyAncestorStatus) entryFields {
	return entryFields{&a.AncestorRef, &a.ControllerName, &a.Conditions}
}

// ourConditions are the conditions of this controller's entries.
func ourConditions[T any](stored []T, fields func(*T) entryFields) (all []metav1.Condition) {
	for i := range stored {
		if f := fields(&stored[i]); *f.controller == v1alpha1.GatewayController {
			all = append(all, *f.conditions...)
		}
	}
	return all
}

// mergeEntries are the stored entries, with ours updated to the reports. Entries of
// other controllers keep their place. An entry of ours without conditions is removed.
func mergeEntries[T any](stored []T, reports []sourced, fields func(*T) entryFields, now metav1.Time) []T {
	entries := entriesOf(reports)
	out := []T{} // never nil: the field is required
	for _, old := range stored {
		if f := fields(&old); *f.controller == v1alpha1.GatewayController {
			mergeConditions(f.conditions, takeReported(&entries, *f.ref, reports), now)
			if len(*f.conditions) == 0 {
				continue
			}
		}
		out = append(out, old)
	}
	for _, e := range entries {
		var next T
		f := fields(&next)
		*f.ref, *f.controller = e.ref, v1alpha1.GatewayController
		mergeConditions(f.conditions, e.reported, now)
		out = append(out, next)
	}
	return out
}

// entriesOf are the entries of all sources' reports, merged by reference, in order
// of appearance.
func entriesOf(reports []sourced) []entry {
	var out []entry
	for _, r := range reports {
		for _, p := range r.report.Parents {
			i := slices.IndexFunc(out, func(o entry) bool { return sameReference(o.ref, p.ParentRef) })
			if i < 0 {
				i = len(out)
				out = append(out, entry{ref: p.ParentRef})
			}
			out[i].reported = append(out[i].reported, sourceConditions{r.source, r.report.Ref.Generation, p.Conditions})
		}
	}
	return out
}

// takeReported removes the entry of a stored reference from entries and returns
// what all sources report for it. A source that reported on the object but not on
// this entry is included without conditions, so that its conditions are removed.
func takeReported(entries *[]entry, ref gatewayv1.ParentReference, reports []sourced) []sourceConditions {
	var reported []sourceConditions
	if i := slices.IndexFunc(*entries, func(e entry) bool { return sameReference(e.ref, ref) }); i >= 0 {
		reported = (*entries)[i].reported
		*entries = slices.Delete(*entries, i, i+1)
	}
	for _, r := range reports {
		if !slices.ContainsFunc(reported, func(s sourceConditions) bool { return s.source == r.source }) {
			reported = append(reported, sourceConditions{source: r.source, generation: r.report.Ref.Generation})
		}
	}
	return reported
}

// sameReference compares references after the API server's defaulting.
func sameReference(a, b gatewayv1.ParentReference) bool {
	return ptr.Deref(a.Group, gatewayv1.GroupName) == ptr.Deref(b.Group, gatewayv1.GroupName) &&
		ptr.Deref(a.Kind, "Gateway") == ptr.Deref(b.Kind, "Gateway") &&
		ptr.Deref(a.Namespace, "") == ptr.Deref(b.Namespace, "") && a.Name == b.Name &&
		ptr.Deref(a.SectionName, "") == ptr.Deref(b.SectionName, "") && ptr.Deref(a.Port, 0) == ptr.Deref(b.Port, 0)
}
