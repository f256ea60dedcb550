package gateway

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// The condition Accepted of a valid Gateway names its fields without effect.
func TestFieldsWithoutEffectAreReported(t *testing.T) {
	given := gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "shared"}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: "crossway",
		Listeners:        []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}},
		Infrastructure:   &gatewayv1.GatewayInfrastructure{Labels: map[gatewayv1.LabelKey]gatewayv1.LabelValue{"team": "shop"}},
		AllowedListeners: &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: new(gatewayv1.NamespacesFromAll)}},
	}}
	class := gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}
	result := Build(Input{GatewayClasses: []gatewayv1.GatewayClass{class}, Gateways: []gatewayv1.Gateway{given}})
	for _, report := range Report(result, nil) {
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

// A Gateway is programmed once all connected edges serve it. Its message names
// EdgePools without a connected edge and EdgePools without a free address.
func TestPoolsWithoutServiceAreReported(t *testing.T) {
	pool := func(name, region string, allocated ...v1alpha1.AddressAllocation) v1alpha1.EdgePool {
		return v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgePoolSpec{Region: region}, Status: v1alpha1.EdgePoolStatus{Allocations: allocated}}
	}
	shared := v1alpha1.GatewayReference{Namespace: "infra", Name: "shared"}
	in := Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "shared", Generation: 1}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "crossway", Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}}}},
		Pools: []v1alpha1.EdgePool{
			pool("asia", "asia", v1alpha1.AddressAllocation{Gateway: shared, Address: "198.18.3.1"}), pool("eu", "eu"),
			pool("us", "us", v1alpha1.AddressAllocation{Gateway: shared, Address: "198.18.1.1"}),
		},
	}
	progress := Progress{{Namespace: "infra", Name: "shared"}: {Generation: 1, Connected: 2, Acked: 2, Unserved: []string{"asia"}}}
	for _, report := range Report(Build(in), progress) {
		if report.Ref.Kind != condition.Gateway {
			continue
		}
		got := report.Conditions[1]
		const want = `all 2 connected edges serve this generation; no edge of EdgePools "asia" is connected: start Envoys there (chart edge); ` +
			`EdgePools "eu" had no free address for it: add a block to spec.addresses`
		if got.Status != metav1.ConditionTrue || got.Message != want || !slices.Equal(report.Addresses, []string{"198.18.1.1"}) {
			t.Errorf("%+v %v", got, report.Addresses)
		}
		return
	}
	t.Error("no report on the Gateway")
}
