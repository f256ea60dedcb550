package registration

import (
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// Drained is the part, 0 to 1, of the requests for a cluster that other clusters get at a time, as its spec.drain says.
func Drained(d *v1alpha1.MemberDrain, now time.Time) float64 {
	if d == nil {
		return 0
	}
	from, to := float64(d.From)/100, float64(d.Percent)/100
	switch {
	case !DrainChanges(d, now):
		return to
	case now.Before(d.StartTime.Time):
		return from
	}
	passed := float64(now.Sub(d.StartTime.Time)) / float64(d.EndTime.Sub(d.StartTime.Time))
	return from + (to-from)*passed
}

// DrainChanges says whether a drain has not come to its end.
func DrainChanges(d *v1alpha1.MemberDrain, now time.Time) bool {
	return d != nil && d.StartTime != nil && d.EndTime != nil && now.Before(d.EndTime.Time)
}

// drainedCondition says what a member's drain does; there is none without a drain.
func drainedCondition(f MemberFacts) []condition.Condition {
	switch d := f.Member.Spec.Drain; {
	case d == nil:
		return nil
	case DrainChanges(d, f.Now):
		return []condition.Condition{condition.MemberDrains(d.From, d.Percent, d.EndTime.Time)}
	default:
		return []condition.Condition{condition.MemberDrained(d.Percent)}
	}
}
