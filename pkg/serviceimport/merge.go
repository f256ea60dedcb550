package serviceimport

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// Export is one accepted member's export of the service.
type Export struct {
	Cluster fleet.ClusterName
	// AcceptedAt is when the hub accepted the member. An export counts from the
	// later of this and its own time, so that a new member cannot win a
	// conflict by claiming that it exported long ago.
	AcceptedAt time.Time
	Spec       v1alpha1.MemberExportSpec
}

// since is the time from which an export counts.
func (e Export) since() time.Time {
	if e.AcceptedAt.After(e.Spec.ExportedAt.Time) {
		return e.AcceptedAt
	}
	return e.Spec.ExportedAt.Time
}

// Merged is the merge of all exports of one service.
type Merged struct {
	Import     *v1alpha1.FleetServiceSpec // nil: no cluster exports it
	Conditions map[fleet.ClusterName][]condition.Condition
}

// Merge combines all exports of one service, one from each cluster. Where they
// disagree, the oldest export decides (ties by cluster name), all exports get
// the condition Conflict, and traffic goes on (KEP-1645, "Constraints and
// conflict resolution"). A conflict that ended leaves no trace.
func Merge(exports []Export) Merged {
	if len(exports) == 0 {
		return Merged{}
	}
	byAge := slices.Clone(exports)
	slices.SortFunc(byAge, func(a, b Export) int {
		return cmp.Or(a.since().Compare(b.since()), cmp.Compare(a.Cluster, b.Cluster))
	})
	oldest := byAge[0].Spec.DeepCopy()
	merged := &v1alpha1.FleetServiceSpec{Service: oldest.Service, ServiceProperties: oldest.ServiceProperties}
	ports, conflicts := mergePorts(byAge)
	merged.Ports = ports
	for _, f := range fields {
		conflicts = append(conflicts, f.conflicts(byAge)...)
	}
	families, familyConflicts := mergeFamilies(byAge)
	merged.IPFamilies = families
	conflicts = append(conflicts, familyConflicts...)
	for i, e := range byAge {
		merged.Clusters = append(merged.Clusters, v1alpha1.ExportingCluster{
			Name: string(e.Cluster), ExportRecord: v1alpha1.ExportRecord{ExportUID: e.Spec.ExportUID, Sequence: int64(i + 1)},
		})
	}
	slices.SortFunc(merged.Clusters, func(a, b v1alpha1.ExportingCluster) int { return cmp.Compare(a.Name, b.Name) })
	return Merged{Import: merged, Conditions: conditions(byAge, conflicts)}
}

func conditions(exports []Export, conflicts []conflict) map[fleet.ClusterName][]condition.Condition {
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

// sortedClusters returns the members of a set, by name.
func sortedClusters(set map[fleet.ClusterName]bool) []string {
	var names []string
	for _, c := range slices.Sorted(maps.Keys(set)) {
		names = append(names, string(c))
	}
	return names
}
