package registration

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// SilentSince says of a member whose agent is not heard when it gave its last sign of
// life. ok: its exports say so; else they do after a time, 0 for never.
func SilentSince(m *v1alpha1.MemberCluster, now time.Time) (since time.Time, ok bool, after time.Duration) {
	c := meta.FindStatusCondition(m.Status.Conditions, condition.MemberReachableType)
	if c == nil || c.Status != metav1.ConditionFalse {
		return since, false, 0
	}
	since = c.LastTransitionTime.Time
	if last := m.Status.LastHeardTime; last != nil {
		since = last.Time
	}
	after = c.LastTransitionTime.Add(v1alpha1.SilenceOfExports).Sub(now)
	return since, after <= 0, max(after, 0)
}

// SilenceChanged says whether a change of a member's status begins or ends its silence.
func SilenceChanged(before, after *v1alpha1.MemberCluster) bool {
	silent := func(m *v1alpha1.MemberCluster) bool {
		return meta.IsStatusConditionFalse(m.Status.Conditions, condition.MemberReachableType)
	}
	return silent(before) != silent(after)
}
