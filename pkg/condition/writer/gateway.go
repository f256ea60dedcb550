package writer

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

func applyGatewayClass(o *gatewayv1.GatewayClass, reports []sourced, now metav1.Time) {
	mergeReports(&o.Status.Conditions, reports, now)
	for _, r := range reports {
		if r.report.Features == nil {
			continue
		}
		features := make([]gatewayv1.SupportedFeature, len(r.report.Features))
		for i, name := range r.report.Features {
			features[i].Name = gatewayv1.FeatureName(name)
		}
		o.Status.SupportedFeatures = features
	}
}

// applyGateway writes conditions, addresses and listeners. The addresses and
// the list of listeners are those of the one source that reports Accepted.
func applyGateway(o *gatewayv1.Gateway, reports []sourced, now metav1.Time) {
	mergeReports(&o.Status.Conditions, reports, now)
	for _, r := range reports {
		if !r.source.types[string(gatewayv1.GatewayConditionAccepted)] {
			continue
		}
		o.Status.Addresses = addressesOf(r.report.Addresses)
		o.Status.Listeners = mergeListeners(o.Status.Listeners, r, now)
	}
}

func addressesOf(addresses []string) []gatewayv1.GatewayStatusAddress {
	var out []gatewayv1.GatewayStatusAddress
	for _, a := range addresses {
		kind := gatewayv1.IPAddressType
		out = append(out, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
	}
	return out
}

// mergeListeners gives one status per reported listener, in their order, and
// keeps the transition times and foreign conditions of those stored.
func mergeListeners(stored []gatewayv1.ListenerStatus, r sourced, now metav1.Time) []gatewayv1.ListenerStatus {
	var out []gatewayv1.ListenerStatus
	for _, l := range r.report.Listeners {
		next := gatewayv1.ListenerStatus{Name: gatewayv1.SectionName(l.Name), AttachedRoutes: l.AttachedRoutes, SupportedKinds: []gatewayv1.RouteGroupKind{}}
		for _, kind := range l.SupportedKinds {
			group := gatewayv1.Group(gatewayv1.GroupName)
			next.SupportedKinds = append(next.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(kind)})
		}
		if i := slices.IndexFunc(stored, func(s gatewayv1.ListenerStatus) bool { return s.Name == next.Name }); i >= 0 {
			next.Conditions = stored[i].Conditions
		}
		mergeConditions(&next.Conditions, []verdict{{r.source, r.report.Ref.Generation, l.Conditions}}, now)
		out = append(out, next)
	}
	return out
}

// entry is a parent of a route or an ancestor of a policy, of ours.
type entry struct {
	ref      gatewayv1.ParentReference
	verdicts []verdict
}

// mergeParents leaves other controllers' parents where they are, brings ours
// to what is reported, and drops those of ours of which nothing is left to say.
func mergeParents(stored []gatewayv1.RouteParentStatus, reports []sourced, now metav1.Time) []gatewayv1.RouteParentStatus {
	entries := entriesOf(reports, func(r condition.Report) []entry {
		var out []entry
		for _, p := range r.Parents {
			out = append(out, entry{ref: parentReference(p.ParentRef), verdicts: []verdict{{conditions: p.Conditions}}})
		}
		return out
	})
	out := []gatewayv1.RouteParentStatus{} // parents is required: never null
	for _, p := range stored {
		if p.ControllerName == v1alpha1.GatewayController {
			mergeConditions(&p.Conditions, take(&entries, p.ParentRef, reports), now)
			if len(p.Conditions) == 0 {
				continue
			}
		}
		out = append(out, p)
	}
	for _, e := range entries {
		p := gatewayv1.RouteParentStatus{ParentRef: e.ref, ControllerName: v1alpha1.GatewayController}
		mergeConditions(&p.Conditions, e.verdicts, now)
		out = append(out, p)
	}
	return out
}

// mergeAncestors is mergeParents for policies (GEP-713).
func mergeAncestors(stored []gatewayv1.PolicyAncestorStatus, reports []sourced, now metav1.Time) []gatewayv1.PolicyAncestorStatus {
	entries := entriesOf(reports, func(r condition.Report) []entry {
		var out []entry
		for _, a := range r.Ancestors {
			out = append(out, entry{ref: ancestorReference(a), verdicts: []verdict{{conditions: a.Conditions}}})
		}
		return out
	})
	out := []gatewayv1.PolicyAncestorStatus{} // ancestors is required: never null
	for _, a := range stored {
		if a.ControllerName == v1alpha1.GatewayController {
			mergeConditions(&a.Conditions, take(&entries, a.AncestorRef, reports), now)
			if len(a.Conditions) == 0 {
				continue
			}
		}
		out = append(out, a)
	}
	for _, e := range entries {
		a := gatewayv1.PolicyAncestorStatus{AncestorRef: e.ref, ControllerName: v1alpha1.GatewayController}
		mergeConditions(&a.Conditions, e.verdicts, now)
		out = append(out, a)
	}
	return out
}

// entriesOf collects what all sources say of each entry, in order of appearance.
func entriesOf(reports []sourced, read func(condition.Report) []entry) []entry {
	var out []entry
	for _, r := range reports {
		for _, e := range read(r.report) {
			said := verdict{r.source, r.report.Ref.Generation, e.verdicts[0].conditions}
			if i := slices.IndexFunc(out, func(o entry) bool { return sameReference(o.ref, e.ref) }); i >= 0 {
				out[i].verdicts = append(out[i].verdicts, said)
				continue
			}
			out = append(out, entry{e.ref, []verdict{said}})
		}
	}
	return out
}

// take removes the entry of a stored reference and gives its verdicts. Sources
// that reported on the object, but not on this entry, take their conditions back.
func take(entries *[]entry, ref gatewayv1.ParentReference, reports []sourced) []verdict {
	var verdicts []verdict
	if i := slices.IndexFunc(*entries, func(e entry) bool { return sameReference(e.ref, ref) }); i >= 0 {
		verdicts = (*entries)[i].verdicts
		*entries = slices.Delete(*entries, i, i+1)
	}
	for _, r := range reports {
		if !slices.ContainsFunc(verdicts, func(v verdict) bool { return v.source == r.source }) {
			verdicts = append(verdicts, verdict{source: r.source, generation: r.report.Ref.Generation})
		}
	}
	return verdicts
}

func parentReference(p condition.ParentRef) gatewayv1.ParentReference {
	return gatewayv1.ParentReference{
		Group: (*gatewayv1.Group)(p.Group), Kind: (*gatewayv1.Kind)(p.Kind), Namespace: (*gatewayv1.Namespace)(p.Namespace),
		Name: gatewayv1.ObjectName(p.Name), SectionName: (*gatewayv1.SectionName)(p.SectionName), Port: p.Port,
	}
}

func ancestorReference(a condition.AncestorReport) gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(a.Group), gatewayv1.Kind(a.Kind)
	ref := gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(a.Name.Name)}
	if a.Name.Namespace != "" {
		namespace := gatewayv1.Namespace(a.Name.Namespace)
		ref.Namespace = &namespace
	}
	return ref
}

// sameReference compares with the API server's defaults filled in.
func sameReference(a, b gatewayv1.ParentReference) bool {
	return value(a.Group, gatewayv1.GroupName) == value(b.Group, gatewayv1.GroupName) &&
		value(a.Kind, "Gateway") == value(b.Kind, "Gateway") &&
		value(a.Namespace, "") == value(b.Namespace, "") && a.Name == b.Name &&
		value(a.SectionName, "") == value(b.SectionName, "") && value(a.Port, 0) == value(b.Port, 0)
}

func value[T cmp.Ordered](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
