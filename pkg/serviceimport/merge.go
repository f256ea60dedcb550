package serviceimport

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// Export is one accepted member's word about the service.
type Export struct {
	Cluster fleet.ClusterName
	// AcceptedAt is when the hub let the member in. An export counts from the
	// later of this and its own time, so that a new member cannot win a
	// conflict by claiming that it exported long ago.
	AcceptedAt time.Time
	Spec       v1alpha1.MemberExportSpec
}

// since is when an export began to count.
func (e Export) since() time.Time {
	if e.AcceptedAt.After(e.Spec.ExportedAt.Time) {
		return e.AcceptedAt
	}
	return e.Spec.ExportedAt.Time
}

// Name is the name of a service's FleetService, the same as of its exports.
func Name(service fleet.ServiceName) string { return serviceexport.ExportName(service) }

// Merged is the fleet's truth about one service.
type Merged struct {
	Import   *v1alpha1.FleetServiceSpec // nil: nobody exports it
	Verdicts map[fleet.ClusterName][]condition.Condition
}

// Merge combines all exports of one service. Whatever they disagree about, the
// oldest export's word holds (ties by cluster name), all exports say Conflict,
// and traffic goes on (KEP-1645, "Constraints and conflict resolution"). A
// conflict that ended leaves no trace. Exports are of one service, one for
// each cluster.
func Merge(exports []Export) Merged {
	if len(exports) == 0 {
		return Merged{}
	}
	aged := slices.Clone(exports)
	slices.SortFunc(aged, func(a, b Export) int {
		return cmp.Or(a.since().Compare(b.since()), cmp.Compare(a.Cluster, b.Cluster))
	})
	oldest := aged[0].Spec.DeepCopy()
	merged := &v1alpha1.FleetServiceSpec{Service: oldest.Service, ServiceProperties: oldest.ServiceProperties}
	ports, conflicts := mergePorts(aged)
	merged.Ports = ports
	for _, f := range fields {
		conflicts = append(conflicts, f.conflict(aged)...)
	}
	families, familyConflicts := mergeFamilies(aged)
	merged.IPFamilies = families
	conflicts = append(conflicts, familyConflicts...)
	for _, e := range aged {
		merged.Clusters = append(merged.Clusters, v1alpha1.ExportingCluster{Name: string(e.Cluster), ExportedAt: e.Spec.ExportedAt})
	}
	slices.SortFunc(merged.Clusters, func(a, b v1alpha1.ExportingCluster) int { return cmp.Compare(a.Name, b.Name) })
	return Merged{Import: merged, Verdicts: verdicts(aged, conflicts)}
}

func verdicts(exports []Export, conflicts []conflict) map[fleet.ClusterName][]condition.Condition {
	all := map[fleet.ClusterName][]condition.Condition{}
	for _, e := range exports {
		if len(conflicts) == 0 {
			all[e.Cluster] = []condition.Condition{condition.ExportNoConflicts()}
			continue
		}
		var reasons, messages []string
		for _, c := range conflicts {
			reasons = append(reasons, c.reason)
			messages = append(messages, c.message(e.Cluster))
		}
		all[e.Cluster] = []condition.Condition{condition.ExportConflicts(reasons, messages)}
	}
	return all
}

// sortedClusters are the keys of a set, by name.
func sortedClusters(set map[fleet.ClusterName]bool) []string {
	var names []string
	for _, c := range slices.Sorted(maps.Keys(set)) {
		names = append(names, string(c))
	}
	return names
}
