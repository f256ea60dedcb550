package writer

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

func isTrue(kind string) condition.Condition {
	return condition.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: kind}
}

// The statuses of Gateway and GatewayClass pass the API server's schema with every
// field set. The status of a listener is removed with the listener.
func TestGateway(t *testing.T) {
	f := newFixture(t)
	class := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}
	f.Must(f.api.Create(t.Context(), class))
	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "shared"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: gatewayv1.ObjectName(class.Name),
			Listeners: []gatewayv1.Listener{{Name: "a", Port: 80, Protocol: "HTTP"}, {Name: "b", Port: 81, Protocol: "HTTP"}}},
	}
	f.Must(f.api.Create(t.Context(), gateway))

	report := condition.Report{
		Ref:        f.ref(condition.Gateway, "shared", 1),
		Conditions: []condition.Condition{isTrue("Accepted"), isTrue("Programmed")},
		Addresses:  []string{"198.18.1.7", "198.18.2.7"},
		Listeners: []condition.ListenerReport{
			{Name: "a", SupportedKinds: []string{"HTTPRoute"}, AttachedRoutes: 3, Conditions: []condition.Condition{isTrue("Accepted")}},
			{Name: "b", Conditions: []condition.Condition{isTrue("Accepted")}},
		},
	}
	f.write(report, condition.Report{
		Ref:        condition.Ref{Kind: condition.GatewayClass, Name: fleet.ObjectName{Name: class.Name}, Generation: 1},
		Conditions: []condition.Condition{isTrue("Accepted")}, Features: []string{"Gateway", "HTTPRoute"},
	})
	report.Listeners = report.Listeners[:1]
	f.write(report)

	f.Must(f.api.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway))
	var got []string
	for _, c := range gateway.Status.Conditions {
		got = append(got, c.Type+"="+string(c.Status))
	}
	for _, a := range gateway.Status.Addresses {
		got = append(got, string(*a.Type)+" "+a.Value)
	}
	for _, l := range gateway.Status.Listeners {
		got = append(got, string(l.Name)+" "+string(l.SupportedKinds[0].Kind)+" "+l.Conditions[0].Type)
	}
	if diff := cmp.Diff([]string{"Accepted=True", "Programmed=True", "IPAddress 198.18.1.7", "IPAddress 198.18.2.7", "a HTTPRoute Accepted"}, got); diff != "" {
		t.Error(diff)
	}
	f.Must(f.api.Get(t.Context(), client.ObjectKeyFromObject(class), class))
	if len(class.Status.SupportedFeatures) != 2 || class.Status.Conditions[0].Status != metav1.ConditionTrue {
		t.Errorf("class status %+v", class.Status)
	}
}

// Two sources report on one policy, each its own condition type. Neither removes
// the other's conditions, even if only one of them has reported so far.
func TestTwoSources(t *testing.T) {
	build := &Source{name: "build", types: map[string]bool{"Accepted": true}}
	load := &Source{name: "load", types: map[string]bool{"Overflowing": true}}
	report := func(s *Source, kind string, names ...string) sourced {
		report := condition.Report{Ref: condition.Ref{Kind: condition.BackendPolicy}}
		for _, name := range names {
			ref := condition.AncestorRef("multicluster.x-k8s.io", "ServiceImport", fleet.ObjectName{Namespace: "shop", Name: name})
			report.Parents = append(report.Parents, condition.ParentReport{ParentRef: ref, Conditions: []condition.Condition{isTrue(kind)}})
		}
		return sourced{s, report}
	}
	policy := &v1alpha1.BackendPolicy{}
	for _, step := range []struct {
		reports []sourced
		want    string
	}{
		{[]sourced{report(build, "Accepted", "web", "api"), report(load, "Overflowing", "web")}, "web:Accepted,Overflowing api:Accepted"},
		{[]sourced{report(load, "Overflowing", "web")}, "web:Accepted,Overflowing api:Accepted"}, // build has just restarted
		{[]sourced{report(build, "Accepted", "web")}, "web:Accepted,Overflowing"},                // the policy no longer names api
		{[]sourced{report(build, "Accepted", "web"), report(load, "Overflowing")}, "web:Accepted"},
	} {
		apply(condition.BackendPolicy, policy, step.reports, metav1.NewTime(noon))
		var got []string
		for _, a := range policy.Status.Ancestors {
			var types []string
			for _, c := range a.Conditions {
				types = append(types, c.Type)
			}
			got = append(got, string(a.AncestorRef.Name)+":"+strings.Join(types, ","))
		}
		if s := strings.Join(got, " "); s != step.want {
			t.Errorf("got %q, want %q", s, step.want)
		}
	}
}

// Envoy's error detail may be long; the API allows 32768 bytes of valid UTF-8.
func TestLongMessage(t *testing.T) {
	var list []metav1.Condition
	for text, whole := range map[string]bool{strings.Repeat("a", 32764) + "é tail": false, "as it is": true} {
		mergeConditions(&list, []sourceConditions{{&Source{}, 1, []condition.Condition{{Type: "Accepted", Message: text}}}}, metav1.NewTime(noon))
		got := list[0].Message
		if len(got) > 32768 || !utf8.ValidString(got) || (got == text) != whole {
			t.Errorf("%d bytes of %d, valid %v", len(got), len(text), utf8.ValidString(got))
		}
	}
}

// The writer does not write statuses that have another writer: for instance, only
// serviceimport/hub writes a MemberExport's.
func TestKindsWithOtherWritersAreRejected(t *testing.T) {
	for _, kind := range []condition.Kind{condition.GatewayClass, condition.Gateway, condition.HTTPRoute, condition.BackendPolicy, condition.EdgePool} {
		if _, err := newObject(kind); err != nil {
			t.Error(err)
		}
	}
	for _, kind := range []condition.Kind{"FleetService", "MemberCluster", "MemberExport", "ServiceImport"} {
		if o, err := newObject(kind); err == nil {
			t.Errorf("the writer takes reports on %s, into %T", kind, o)
		}
	}
}

// Allocations that were computed from others than the stored ones are not written: an address could have two owners.
func TestStaleAllocations(t *testing.T) {
	allocated := func(names ...string) (all []v1alpha1.AddressAllocation) {
		for i, name := range names {
			all = append(all, v1alpha1.AddressAllocation{Gateway: v1alpha1.GatewayReference{Namespace: "shop", Name: name}, Address: fmt.Sprintf("198.18.1.%d", i+1)})
		}
		return all
	}
	pool := &v1alpha1.EdgePool{}
	for _, step := range []struct {
		given, allocations, want []v1alpha1.AddressAllocation
	}{
		{nil, allocated("a"), allocated("a")},
		{nil, allocated("b"), allocated("a")},
		{allocated("a"), allocated("a", "b"), allocated("a", "b")},
	} {
		report := condition.Report{Ref: condition.Ref{Kind: condition.EdgePool}, Pool: &condition.PoolReport{Edges: 2, Given: step.given, Allocations: step.allocations}}
		apply(condition.EdgePool, pool, []sourced{{&Source{name: "edgepools"}, report}}, metav1.NewTime(noon))
		if diff := cmp.Diff(step.want, pool.Status.Allocations); diff != "" || pool.Status.Edges != 2 {
			t.Errorf("%d edges, %s", pool.Status.Edges, diff)
		}
	}
}
