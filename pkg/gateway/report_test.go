package gateway

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// What of a valid Gateway has no effect is said in its condition Accepted.
func TestWhatHasNoEffectIsSaid(t *testing.T) {
	given := gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "shared"}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: "crossway",
		Listeners:        []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}},
		Infrastructure:   &gatewayv1.GatewayInfrastructure{Labels: map[gatewayv1.LabelKey]gatewayv1.LabelValue{"team": "shop"}},
		AllowedListeners: &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: new(gatewayv1.NamespacesFromAll)}},
	}}
	class := gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}
	result := Build(Input{GatewayClasses: []gatewayv1.GatewayClass{class}, Gateways: []gatewayv1.Gateway{given}})
	for _, report := range result.Reports {
		if report.Ref.Kind != condition.Gateway {
			continue
		}
		accepted := report.Conditions[0]
		for _, field := range []string{"spec.infrastructure", "spec.allowedListeners"} {
			if accepted.Status != metav1.ConditionTrue || !strings.Contains(accepted.Message, field+" have no effect") && !strings.Contains(accepted.Message, field+" has no effect") {
				t.Errorf("%s: %+v", field, accepted)
			}
		}
		return
	}
	t.Error("no report on the Gateway")
}
