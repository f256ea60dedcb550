package reconciler

import (
	"context"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// servedPath is the path of the route in the Model, or "".
func (e *editor) servedPath() string {
	for _, host := range e.loop.result.Model.Listeners[0].Chains[0].Hosts {
		for _, rule := range host.Rules {
			if rule.Origin.Route == routeRef("route-0000") {
				return rule.Match.Path.Value
			}
		}
	}
	return ""
}

// conditions are those of the route, with their reasons.
func (e *editor) conditions() (text string) {
	for _, report := range gateway.Report(e.loop.result, nil) {
		if report.Ref.Object() == routeRef("route-0000") {
			for _, c := range report.Parents[0].Conditions {
				text += c.Type + "=" + string(c.Status) + " " + c.Reason + ", "
			}
		}
	}
	return text
}

// edit gives the route a path and backends.
func (e *editor) edit(path string, backends ...gatewayv1.ObjectName) {
	e.route.Generation++
	e.route.Spec.Rules[0].Matches[0].Path.Value = &path
	e.route.Spec.Rules[0].BackendRefs = nil
	for _, name := range backends {
		ref := *httpRoute("", "/").Spec.Rules[0].BackendRefs[0].DeepCopy()
		ref.Name = name
		e.route.Spec.Rules[0].BackendRefs = append(e.route.Spec.Rules[0].BackendRefs, ref)
	}
	e.changed()
}

// An edit that is over budget takes nothing down: the generation that was accepted last is served, also by a hub that
// restarts, until the route changes again or there is room.
func TestEditOverBudgetKeepsTheRoute(t *testing.T) {
	e := newEditor(t, v1alpha1.Budgets{Gateway: v1alpha1.Budget{Clusters: new(int32(2))}})
	other := httpRoute("route-0001", "/")
	other.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: v1alpha1.GatewayController, ParentRef: other.Spec.ParentRefs[0],
		Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, ObservedGeneration: 1}}}}
	e.loop.input.Routes[1] = gateway.FromHTTPRoute(other)
	expect := func(why, path, conditions string) {
		t.Helper()
		if got := e.servedPath(); got != path {
			t.Errorf("%s: %q is served, and not %q", why, got, path)
		}
		if got := e.conditions(); !strings.HasPrefix(got, conditions) {
			t.Errorf("%s: %s", why, got)
		}
	}
	e.edit("/good", "a")
	e.status(metav1.ConditionTrue)
	e.changed()
	expect("it fits", "/good", "Accepted=True Accepted, Resolved")
	good := e.route.Generation
	for _, path := range []string{"/large", "/larger"} {
		e.edit(path, "a", "b")
		expect("too large", "/good", "Accepted=True Accepted, PartiallyInvalid=True OverBudget")
		if served := e.loop.objectOf(e.loop.input.Routes[0]); served.Generation != good {
			t.Errorf("the rollout believes that generation %d is served", served.Generation)
		}
	}

	records, err := recordsOf("crossway-system", e.loop.keptRecords())
	testkit.Must(t, err)
	var restored []rollout.Refusal
	for _, r := range records {
		f, err := refusalFrom(r.Data.Raw)
		testkit.Must(t, err)
		restored = append(restored, f)
	}
	in := e.loop.input
	in.Memo, in.Routes = nil, []*gateway.Route{in.Routes[0].WithEarlier(nil), in.Routes[1]}
	restarted := New(Options{})
	if left := restarted.restoreKept(restored); len(restored) != 1 || len(left) != 0 {
		t.Fatal("records: ", len(restored), " of other kinds: ", len(left))
	}
	result := restarted.earlier.Build(&in)
	if !model.SameSlice(result.Model.Secrets, e.loop.result.Model.Secrets) || result.Fallbacks()[routeRef("route-0000")] == nil {
		t.Error("a hub that restarted does not serve what was accepted")
	}

	e.edit("/small", "b")
	expect("small again", "/small", "Accepted=True Accepted, Resolved")
	if len(e.loop.result.Fallbacks()) != 0 || e.loop.objectOf(e.loop.input.Routes[0]).Generation != e.route.Generation {
		t.Error("the rollout believes that an earlier generation is served")
	}
	e.status(metav1.ConditionTrue)
	if e.changed(); len(e.loop.earlier) != 0 {
		t.Error("earlier versions are kept without end: ", len(e.loop.earlier))
	}
}

// Edits may come faster than statuses are written. One that is over budget then leaves the last one that a status accepts.
func TestFastEditsOverBudgetKeepTheRoute(t *testing.T) {
	e := newEditor(t, v1alpha1.Budgets{Route: v1alpha1.Budget{Clusters: new(int32(1))}})
	e.edit("/accepted", "a")
	e.status(metav1.ConditionTrue)
	e.changed()
	e.edit("/unwritten", "a")
	e.edit("/large", "a", "b")
	if got := e.servedPath(); got != "/accepted" {
		t.Errorf("%q is served", got)
	}
}

// What was read before another kind could not be read is no less an edit.
func TestEditOverBudgetAfterAFailedPassKeepsTheRoute(t *testing.T) {
	e := newEditor(t, v1alpha1.Budgets{Route: v1alpha1.Budget{Clusters: new(int32(1))}})
	e.edit("/accepted", "a")
	e.status(metav1.ConditionTrue)
	e.changed()
	large := e.route.DeepCopy()
	large.Generation++
	large.Spec.Rules[0].BackendRefs = append(large.Spec.Rules[0].BackendRefs, *large.Spec.Rules[0].BackendRefs[0].DeepCopy())
	large.Spec.Rules[0].BackendRefs[1].Name = "b"
	fails := errors.New("no answer")
	e.loop.watchKinds([]watchedKind{
		{rolledOut: true, list: func(_ context.Context, _ client.Reader, into *gateway.Input) error {
			into.Routes = []*gateway.Route{gateway.FromHTTPRoute(large), into.Routes[1]}
			return nil
		}},
		{list: func(context.Context, client.Reader, *gateway.Input) error { return fails }}})
	e.loop.inbox.Add(func(p *pending) { p.staleAll() })
	if _, err := e.loop.pass(t.Context()); !errors.Is(err, fails) {
		t.Fatal(err)
	}
	fails = nil
	e.pass()
	if got := e.servedPath(); got != "/accepted" {
		t.Errorf("%q is served", got)
	}
}
