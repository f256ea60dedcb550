package condition

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const edgePoolReady = "Ready"

// EdgePoolReady says that at least one edge of the pool is connected. How many
// is in status.edges.
func EdgePoolReady() Condition {
	return Condition{Type: edgePoolReady, Status: metav1.ConditionTrue, Reason: "EdgesConnected", Message: "edges are connected to the hub"}
}

// EdgePoolNearestIgnored adds to a verdict that another pool's spec.nearest
// counts for the region instead of this one's.
func EdgePoolNearestIgnored(c Condition, region, other string) Condition {
	c.Message += fmt.Sprintf("; spec.nearest does not count: that of EdgePool %q decides for region %q; write the same here, or leave it out", other, region)
	return c
}

// EdgePoolNoEdges says that nobody serves the pool's Gateways, or that those
// who do have lost the hub and serve what they had.
func EdgePoolNoEdges(pool string) Condition {
	return Condition{Type: edgePoolReady, Status: metav1.ConditionFalse, Reason: "NoEdges",
		Message: fmt.Sprintf("no edge of EdgePool %q is connected to the hub; install the chart \"edge\" for it, or look at the logs of its pods", pool)}
}
