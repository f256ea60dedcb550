package gateway

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// However many routes send to an import, each edge checks each of its endpoints at
// most maxChecks times an interval, also after a patch.
func TestRoutesDoNotMultiplyHealthChecks(t *testing.T) {
	for _, c := range []struct {
		routes   int
		interval gatewayv1.Duration
		want     time.Duration
	}{{1, "1s", time.Second}, {16, "1s", time.Second}, {17, "1s", 2 * time.Second}, {100, "1s", 8 * time.Second},
		{300, "99999h99999h", 2 * 99999 * time.Hour}} {
		in := bigInput(c.routes)
		for _, route := range in.Routes {
			objectOf(route).Spec.Rules[0].BackendRefs[0].Name = "app-0"
		}
		in.Policies = []v1alpha1.BackendPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "checked"}, Spec: v1alpha1.BackendPolicySpec{
			TargetRefs:  []gatewayv1.LocalPolicyTargetReference{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport", Name: "app-0"}},
			HealthCheck: &v1alpha1.HealthCheck{Interval: c.interval, Timeout: "1s"}}}}
		result := Build(in)
		in.Memo = result.Memo
		for _, after := range []Result{result, change(&in, 0)} {
			if len(after.Model.Assignments) != c.routes {
				t.Fatalf("%d assignments", len(after.Model.Assignments))
			}
			for _, a := range after.Model.Assignments {
				if a.Policy.HealthCheck.Interval != c.want {
					t.Fatalf("%d routes: checks each %v, want %v", c.routes, a.Policy.HealthCheck.Interval, c.want)
				}
			}
		}
	}
}

// Routes of one namespace to an import of another slow down no check of its owner's.
func TestOthersDoNotSlowDownHealthChecks(t *testing.T) {
	in := bigInput(2 * maxChecks)
	in.Policies = []v1alpha1.BackendPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "checked"}, Spec: v1alpha1.BackendPolicySpec{
		TargetRefs:  []gatewayv1.LocalPolicyTargetReference{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport", Name: "app-0"}},
		HealthCheck: &v1alpha1.HealthCheck{Interval: "1s", Timeout: "1s"}}}}
	in.Grants = []gatewayv1beta1.ReferenceGrant{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "blog"}, Spec: gatewayv1beta1.ReferenceGrantSpec{
		From: []gatewayv1beta1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "blog"}},
		To:   []gatewayv1beta1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport"}}}}}
	for i, route := range in.Routes {
		ref := &objectOf(route).Spec.Rules[0].BackendRefs[0]
		if ref.Name = "app-0"; i > 0 {
			o := objectOf(route)
			o.Namespace, ref.Namespace = "blog", new(gatewayv1.Namespace("shop"))
			in.Routes[i] = FromHTTPRoute(o)
		}
	}
	for _, a := range Build(in).Model.Assignments {
		want := time.Second
		if a.Route.Name.Namespace == "blog" {
			want = 2 * time.Second
		}
		if a.Policy.HealthCheck.Interval != want {
			t.Errorf("checks of %s each %v, want %v", a.Route, a.Policy.HealthCheck.Interval, want)
		}
	}
}
