package condition

import (
	"fmt"
)

// EdgePoolReadyType says whether edges of a pool are connected.
const EdgePoolReadyType = "Ready"

// EdgePoolReady says that at least one edge of the pool is connected. Their number
// is in status.edges.
func EdgePoolReady() Condition {
	return newCondition(EdgePoolReadyType, true, "EdgesConnected",
		"edges are connected to the hub")
}

// EdgePoolNearestIgnored adds to a condition's message that another pool's
// spec.nearest counts for the region instead of this pool's.
func EdgePoolNearestIgnored(c Condition, region, other string) Condition {
	c.Message += fmt.Sprintf("; spec.nearest does not count: that of EdgePool %q decides for region %q; write the same here, or leave it out", other, region)
	return c
}

// EdgePoolNoEdges says that no edge of the pool is connected. Edges that lost the
// hub may still serve their last configuration.
func EdgePoolNoEdges(pool string) Condition {
	return newCondition(EdgePoolReadyType, false, "NoEdges",
		fmt.Sprintf("no edge of EdgePool %q is connected to the hub; install the chart \"edge\" for it, or look at the logs of its pods", pool))
}
