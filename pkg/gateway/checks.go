package gateway

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// maxChecks is how many Envoy clusters of one namespace's routes check each endpoint
// of a backend at the interval of its policy. Each cluster checks on its own, so with
// twice as many the interval is twice as long, and so on: routes never multiply the
// checks. Those of another namespace, which may use the backend by a ReferenceGrant,
// stay as they are.
var maxChecks = 16

// slowInterval is an interval that is never made longer: years, times a factor, are
// more than a time.Duration holds.
const slowInterval = time.Hour

// slowdowns are the factors, powers of two, of the intervals of health checks; none: 1.
type slowdowns map[check]int

// check are the health checks of a backend for the routes of a namespace.
type check struct {
	namespace string
	backend   fleet.Backend
}

// slowChecks counts the assignments that check each backend, and slows down the
// checks of those that too many check.
func (b *build) slowChecks() {
	b.slowdowns = slowdowns{}
	counts := map[check]int{}
	for i := range b.model.Assignments {
		for _, c := range checksOf(&b.model.Assignments[i]) {
			counts[c]++
		}
	}
	for c, count := range counts {
		factor := 1
		for count > factor*maxChecks {
			factor *= 2
		}
		if factor > 1 {
			b.slowdowns[c] = factor
		}
	}
	if len(b.slowdowns) == 0 {
		return
	}
	for i := range b.model.Assignments {
		b.model.Assignments[i] = b.slowdowns.slowed(b.model.Assignments[i])
	}
}

// slowed is an assignment with the interval of its health check.
func (s slowdowns) slowed(a model.Assignment) model.Assignment {
	factor := 1
	for _, c := range checksOf(&a) {
		factor = max(factor, s[c])
	}
	if factor > 1 && a.Policy.HealthCheck.Interval < slowInterval {
		policy, check := *a.Policy, *a.Policy.HealthCheck
		check.Interval *= time.Duration(factor)
		policy.HealthCheck, a.Policy = &check, &policy
	}
	return a
}

// checksOf are the checks that an assignment's cluster makes.
func checksOf(a *model.Assignment) (checks []check) {
	if a.Policy.Check() == nil {
		return nil
	}
	for i := range a.Backends {
		c := check{a.Route.Name.Namespace, a.Backends[i].Backend}
		if !a.Backends[i].Unchecked && !slices.Contains(checks, c) {
			checks = append(checks, c)
		}
	}
	return checks
}
