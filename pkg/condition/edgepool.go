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

// EdgePoolCertificatesType says whether the certificates of a pool's edges, and the CA
// that signs them, are in order.
const EdgePoolCertificatesType = "CertificatesValid"

// EdgePoolCertificatesValid says that no certificate of a connected edge ends soon.
func EdgePoolCertificatesValid() Condition {
	return newCondition(EdgePoolCertificatesType, true, "Valid", "no certificate of a connected edge ends soon")
}

// EdgePoolOldCA says which credentials of connected edges the former edge CA signed,
// while it is rotated.
func EdgePoolOldCA(credentials string) Condition {
	return newCondition(EdgePoolCertificatesType, true, "OldCA",
		"the edge CA is being rotated, and these credentials are not renewed yet: "+credentials+"; the rotation is finished once they are")
}

// EdgePoolCertificatesEndSoon says which certificates of connected edges end soon.
func EdgePoolCertificatesEndSoon(credentials string) Condition {
	return newCondition(EdgePoolCertificatesType, false, "EndSoon",
		"certificates of connected edges end soon and were not renewed: "+credentials+
			"; look at the log of Deployment crossway-edge-<pool>-renewal in the edges' cluster, or join the edges again: crossway token create --edge")
}

// EdgePoolCAMissing says why no certificate of an edge can be signed.
func EdgePoolCAMissing(fault string) Condition {
	return newCondition(EdgePoolCertificatesType, false, "CAMissing", fault)
}
