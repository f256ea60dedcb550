package reconciler

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

func shop(name string) fleet.ObjectName { return fleet.ObjectName{Namespace: "shop", Name: name} }

func routeRef(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: condition.HTTPRoute, Name: shop(name)}
}

// acceptedRoute is a route of namespace shop whose status has this c on
// its present generation.
func acceptedRoute(name string, generation int64, c condition.Condition) gatewayv1.HTTPRoute {
	return gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Generation: generation},
		Status: gatewayv1.HTTPRouteStatus{RouteStatus: gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{{
			ControllerName: v1alpha1.GatewayController,
			Conditions: []metav1.Condition{{
				Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message, ObservedGeneration: generation,
			}},
		}}}},
	}
}
