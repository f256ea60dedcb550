package condition

import (
	"fmt"
	"strings"
	"time"
)

// EdgePoolReadyType says whether edges of a pool are connected.
const EdgePoolReadyType = "Ready"

// EdgePoolReady says that at least one edge of the pool is connected. Their number
// is in status.edges. silent are replicas of the hub of which nothing is heard, whose
// edges do not count.
func EdgePoolReady(silent ...SilentReplica) Condition {
	return newCondition(EdgePoolReadyType, true, "EdgesConnected", "edges are connected to the hub"+notKnown(silent))
}

func notKnown(silent []SilentReplica) string {
	if len(silent) == 0 {
		return ""
	}
	return "; edges that are connected to " + silentReplicas(silent) + " are not known"
}

// EdgePoolNearestIgnored adds to a condition's message that another pool's
// spec.nearest counts for the region instead of this pool's.
func EdgePoolNearestIgnored(c Condition, region, other string) Condition {
	c.Message += fmt.Sprintf("; spec.nearest does not count: that of EdgePool %q decides for region %q; write the same here, or leave it out", other, region)
	return c
}

// EdgePoolNoEdges says that no edge of the pool is connected. Edges that lost the
// hub may still serve their last configuration. silent are replicas of the hub of which
// nothing is heard, whose edges do not count any more.
func EdgePoolNoEdges(pool string, silent ...SilentReplica) Condition {
	message := fmt.Sprintf("no edge of EdgePool %q is connected to the hub; install the chart \"edge\" for it, or look at the logs of its pods", pool)
	return newCondition(EdgePoolReadyType, false, "NoEdges", message+notKnown(silent))
}

// SilentReplica is a replica of the hub of which the one that writes hears nothing.
type SilentReplica struct {
	Name  string
	Since time.Time
}

func silentReplicas(silent []SilentReplica) string {
	names := make([]string, len(silent))
	for i, s := range silent {
		names[i] = fmt.Sprintf("replica %q of the hub, which is silent since %s,", s.Name, s.Since.UTC().Format(time.RFC3339))
	}
	return strings.Join(names, " or ")
}

// EdgePoolRemembered says that some edges count as they were, because the replicas of the
// hub that they were connected to are silent.
func EdgePoolRemembered(edges int, silent []SilentReplica, hold time.Duration) Condition {
	c := EdgePoolReady()
	c.Message += fmt.Sprintf("; %d of them were connected to %s and count as they were for %s after that", edges, silentReplicas(silent), hold)
	return c
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
