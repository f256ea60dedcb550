package writer

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/condition"
)

// sourced is one source's report on an object.
type sourced struct {
	source *Source
	report condition.Report
}

func sortSourced(reports []sourced) {
	slices.SortFunc(reports, func(a, b sourced) int { return cmp.Compare(a.source.name, b.source.name) })
}

// sourceConditions are the conditions that one source reports for one list. If
// there are none, the source's conditions are removed from the list.
type sourceConditions struct {
	source     *Source
	generation int64
	conditions []condition.Condition
}

// mergeConditions updates a list to the sources' conditions. Conditions of other
// types stay as they are.
func mergeConditions(list *[]metav1.Condition, reported []sourceConditions, now metav1.Time) {
	for _, r := range reported {
		for _, c := range r.conditions {
			condition.Set(list, c, r.generation, now)
		}
		*list = slices.DeleteFunc(*list, func(stored metav1.Condition) bool {
			return r.source.types[stored.Type] &&
				!slices.ContainsFunc(r.conditions, func(c condition.Condition) bool { return c.Type == stored.Type })
		})
	}
}

func mergeReports(list *[]metav1.Condition, reports []sourced, now metav1.Time) {
	reported := make([]sourceConditions, len(reports))
	for i, r := range reports {
		reported[i] = sourceConditions{r.source, r.report.Ref.Generation, r.report.Conditions}
	}
	mergeConditions(list, reported, now)
}
