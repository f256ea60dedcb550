package gateway

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A status that repeats what a Result decided changes no later Result, whatever other routes have no room.
func TestConfirmationChangesNothing(tb *testing.T) {
	inputs, confirmed, tight := genInput(tb), 0, 0
	rapid.Check(tb, func(t *rapid.T) {
		in := inputs.Draw(t, "in")
		tighten(t, &in)
		in.Memo = nil
		earlier, now := Earlier{}, epoch
		last := earlier.Build(&in)
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			before := in.Routes
			in.Routes = withStatuses(in.Routes, last, now)
			for i := range in.Routes {
				if rapid.IntRange(0, 3).Draw(t, "edited") == 3 {
					in.Routes[i] = revised(in.Routes[i], func(r *gatewayv1.HTTPRoute) { r.Spec = genRoute(t).Spec })
				}
			}
			earlier.Note(last, before, in.Routes)
			last = earlier.Build(&in)
		}
		if len(last.Memo.overBudget) > 0 {
			tight++
		}
		for i, now := range withStatuses(in.Routes, last, now) {
			if !rapid.Bool().Draw(t, "written") {
				continue
			}
			if route, ok := last.Confirmation(in.Routes[i], now); ok {
				in.Routes[i] = route
				confirmed++
			}
		}
		in.Memo = nil
		next := Build(in)
		must(t, reflect.DeepEqual(decisions(next), decisions(last)), "a status changed a Result:\n%s%s\nor\n%s%s", describeModel(last.Model), describeReports(Report(last, nil), "HTTPRoute", ""),
			describeModel(next.Model), describeReports(Report(next, nil), "HTTPRoute", ""))
	})
	tb.Logf("%d confirmations, %d Results without room for all routes", confirmed, tight)
	if !testing.Short() && (confirmed < 30 || tight < 30) {
		tb.Errorf("only %d confirmations, and %d Results without room for all routes: this tests nothing", confirmed, tight)
	}
}

// decisions are what a Result says, but for messages: those of a route without room say how much others took when it was
// decided.
func decisions(r Result) outcome {
	decided := outcomeOf(r)
	for i := range decided.Reports {
		for k := range decided.Reports[i].Parents {
			for c := range decided.Reports[i].Parents[k].Conditions {
				decided.Reports[i].Parents[k].Conditions[c].Message = ""
			}
		}
	}
	return decided
}
