package writer

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func classConditions(o *gatewayv1.GatewayClass) []metav1.Condition { return o.Status.Conditions }

func mergeGatewayClass(o *gatewayv1.GatewayClass, reports []sourced, now metav1.Time) {
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

func gatewayConditions(o *gatewayv1.Gateway) []metav1.Condition {
	all := slices.Clone(o.Status.Conditions)
	for _, l := range o.Status.Listeners {
		all = append(all, l.Conditions...)
	}
	return all
}

// mergeGateway updates conditions, addresses and listeners. Addresses and listeners
// come from the source that reports Accepted.
func mergeGateway(o *gatewayv1.Gateway, reports []sourced, now metav1.Time) {
	mergeReports(&o.Status.Conditions, reports, now)
	for _, r := range reports {
		if !r.source.types[string(gatewayv1.GatewayConditionAccepted)] {
			continue
		}
		o.Status.Addresses = nil
		for _, a := range r.report.Addresses {
			o.Status.Addresses = append(o.Status.Addresses, gatewayv1.GatewayStatusAddress{Type: new(gatewayv1.IPAddressType), Value: a})
		}
		o.Status.Listeners = mergeListeners(o.Status.Listeners, r, now)
	}
}

// mergeListeners are the statuses of the reported listeners, in their order. They
// keep the stored transition times and the conditions of other controllers.
func mergeListeners(stored []gatewayv1.ListenerStatus, r sourced, now metav1.Time) []gatewayv1.ListenerStatus {
	var out []gatewayv1.ListenerStatus
	for _, l := range r.report.Listeners {
		next := gatewayv1.ListenerStatus{Name: gatewayv1.SectionName(l.Name), AttachedRoutes: l.AttachedRoutes, SupportedKinds: []gatewayv1.RouteGroupKind{}}
		for _, kind := range l.SupportedKinds {
			next.SupportedKinds = append(next.SupportedKinds, gatewayv1.RouteGroupKind{Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: gatewayv1.Kind(kind)})
		}
		if i := slices.IndexFunc(stored, func(s gatewayv1.ListenerStatus) bool { return s.Name == next.Name }); i >= 0 {
			next.Conditions = stored[i].Conditions
		}
		mergeConditions(&next.Conditions, []sourceConditions{{r.source, r.report.Ref.Generation, l.Conditions}}, now)
		out = append(out, next)
	}
	return out
}
