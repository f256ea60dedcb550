package gateway

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// Confirmation is a route of the Input with the status that it has by now, if that
// status says of its acceptance what the Result decided. A Build would then have the
// same Result: whoever wrote the status only repeated it. Nor do other routes find room
// then, or lose it: all that are admitted fit together, in whatever order. A route of
// which an earlier version is served, or was, is none.
func (r *Result) Confirmation(present, now *Route) (*Route, bool) {
	if r.Memo == nil || r.Memo.kept[now.Ref] != nil || present.earlier != nil || present.UID != now.UID || present.Generation != now.Generation {
		return nil, false
	}
	report := r.reportOn(now.Ref)
	if report == nil || len(report.Parents) == 0 && !now.HasOurStatus() { // reported on for its status alone
		return nil, false
	}
	var decided []fleet.ObjectName
	for i := range report.Parents {
		if parent := &report.Parents[i]; parent.Conditions[0].Status == metav1.ConditionTrue {
			decided = append(decided, parentName(now.Ref, &parent.ParentRef))
		}
	}
	if !slices.Equal(distinct(decided), distinct(now.AcceptedBy())) {
		return nil, false
	}
	confirmed := *present
	confirmed.Status = now.Status
	return &confirmed, true
}

func distinct(names []fleet.ObjectName) []fleet.ObjectName {
	slices.SortFunc(names, fleet.ObjectName.Compare)
	return slices.Compact(names)
}

// reportOn is the report on an object, or nil.
func (r *Result) reportOn(ref fleet.ObjectRef) *objectReport {
	at, found := slices.BinarySearchFunc(r.reports, ref, func(x *objectReport, ref fleet.ObjectRef) int { return x.Ref.Object().Compare(ref) })
	if !found {
		return nil
	}
	return r.reports[at]
}
