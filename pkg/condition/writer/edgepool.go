package writer

import (
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

func poolConditions(o *v1alpha1.EdgePool) []metav1.Condition { return o.Status.Conditions }

// mergeEdgePool updates conditions, the number of edges, credentials, and allocations, unless
// these were computed from others than the stored ones.
func mergeEdgePool(o *v1alpha1.EdgePool, reports []sourced, now metav1.Time) {
	mergeReports(&o.Status.Conditions, reports, now)
	for _, r := range reports {
		if credentials := r.report.Credentials; credentials != nil {
			o.Status.Credentials = *credentials
		}
		pool := r.report.Pool
		if pool == nil {
			continue
		}
		o.Status.Edges = pool.Edges
		if equality.Semantic.DeepEqual(o.Status.Allocations, pool.Given) {
			o.Status.Allocations = pool.Allocations
		}
	}
}
