package reconciler

import (
	"context"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
)

// editor edits one route of a Gateway, and passes.
type editor struct {
	*testing.T
	loop  *Reconciler
	route *gatewayv1.HTTPRoute // as the cache has it
}

func newEditor(t *testing.T, budgets v1alpha1.Budgets) *editor {
	in := inputOf(2)
	in.Parameters = []v1alpha1.GatewayParameters{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "small"}, Spec: v1alpha1.GatewayParametersSpec{Budgets: budgets}}}
	in.Gateways[0].Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{
		ParametersRef: &gatewayv1.LocalParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "small"}}
	edges := &sink{}
	e := &editor{T: t, route: httpRoute("route-0000", "/")}
	e.loop = New(Options{Publisher: edges, Assigner: edges, Reporter: noReporter{}, PoolReporter: noReporter{}, Cache: store{get: func(into *gatewayv1.HTTPRoute) { e.route.DeepCopyInto(into) }}})
	e.loop.watchKinds([]watchedKind{{rolledOut: true, list: func(_ context.Context, _ client.Reader, into *gateway.Input) error { *into = in; return nil }},
		{route: &gateway.RouteKinds()[0], list: func(context.Context, client.Reader, *gateway.Input) error { return nil }}})
	e.pass()
	return e
}

// pass says whether there was a Build.
func (e *editor) pass() bool {
	built, err := e.loop.pass(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	return built
}

// changed passes after an event about the route.
func (e *editor) changed() (built bool) {
	e.loop.inbox.Add(func(p *pending) { p.routes.Insert(routeRef("route-0000")) })
	return e.pass()
}

// status is one that says whether the Gateway accepts the route's present generation.
func (e *editor) status(accepted metav1.ConditionStatus) {
	e.route.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: v1alpha1.GatewayController, ParentRef: e.route.Spec.ParentRefs[0],
		Conditions: []metav1.Condition{{Type: "Accepted", Status: accepted, ObservedGeneration: e.route.Generation}}}}
}

// The hub's own decision comes back from the API server in the route's status. That is no news for Build, but the next
// Build knows it. Another decision than the hub's own is news.
func TestOwnAcceptanceIsNoBuild(t *testing.T) {
	e := newEditor(t, v1alpha1.Budgets{})
	for _, edit := range []string{"/new", "/edited"} { // the first status is new as a whole
		e.route.Generation++
		e.route.Spec.Rules[0].Matches[0].Path.Value = &edit
		if !e.changed() {
			t.Fatal("an edit is no Build")
		}
		if e.status(metav1.ConditionTrue); e.changed() {
			t.Error("the hub's own decision is a Build")
		}
		if at, _ := findRoute(e.loop.input.Routes, routeRef("route-0000")); len(e.loop.input.Routes[at].AcceptedBy()) != 1 {
			t.Error("the next Build would not know that the route is accepted")
		}
	}
	if e.status(metav1.ConditionFalse); !e.changed() {
		t.Error("somebody else's decision is no Build")
	}
	e.status(metav1.ConditionTrue)
	e.changed()
	if e.route.Status.Parents = nil; !e.changed() {
		t.Error("a status that somebody removed is no Build")
	}
}

// So it is where another route found no room: one that is refused must not cost a Build for each status of the others.
func TestOwnAcceptanceIsNoBuildWhereRoomIsShort(t *testing.T) {
	e := newEditor(t, v1alpha1.Budgets{Gateway: v1alpha1.Budget{Clusters: new(int32(1))}})
	if over := slices.Sorted(overBudget(e)); len(over) != 1 || over[0] == "route-0000" {
		t.Fatal("routes without room: ", over)
	}
	if e.status(metav1.ConditionTrue); e.changed() {
		t.Error("the hub's own decision is a Build")
	}
	if e.status(metav1.ConditionFalse); !e.changed() {
		t.Error("somebody else's decision is no Build")
	}
}

// overBudget are the routes that some Gateway refuses.
func overBudget(e *editor) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, report := range gateway.Report(e.loop.result, nil) {
			if len(report.Parents) > 0 && report.Parents[0].Conditions[0].Status != metav1.ConditionTrue && !yield(report.Ref.Name.Name) {
				return
			}
		}
	}
}
