package gateway

import (
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// maxChecks is how many Envoy clusters check each endpoint of a backend at the
// interval of its policy. Each cluster checks on its own, so with twice as many
// the interval is twice as long, and so on: routes never multiply the checks.
var maxChecks = 16

// slowInterval is an interval that is never made longer: years, times a factor, are
// more than a time.Duration holds.
const slowInterval = time.Hour

// slowdowns are the factors, powers of two, of the intervals of health checks, by
// backend; none: 1.
type slowdowns map[fleet.Backend]int

// slowChecks counts the assignments that check each backend, and slows down the
// checks of those that too many check.
func (b *build) slowChecks() {
	b.slowdowns = slowdowns{}
	counts := map[fleet.Backend]int{}
	for i := range b.model.Assignments {
		for _, backend := range checked(&b.model.Assignments[i]) {
			counts[backend]++
		}
	}
	for backend, count := range counts {
		factor := 1
		for count > factor*maxChecks {
			factor *= 2
		}
		if factor > 1 {
			b.slowdowns[backend] = factor
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
	for _, backend := range checked(&a) {
		factor = max(factor, s[backend])
	}
	if factor > 1 && a.Policy.HealthCheck.Interval < slowInterval {
		policy, check := *a.Policy, *a.Policy.HealthCheck
		check.Interval *= time.Duration(factor)
		policy.HealthCheck, a.Policy = &check, &policy
	}
	return a
}

// checked are the backends whose endpoints an assignment's cluster checks.
func checked(a *model.Assignment) (backends []fleet.Backend) {
	if a.Policy.Check() == nil {
		return nil
	}
	for i := range a.Backends {
		if w := &a.Backends[i]; !w.Unchecked && !slices.Contains(backends, w.Backend) {
			backends = append(backends, w.Backend)
		}
	}
	return backends
}
