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
	// AcceptedAt is when the hub accepted the member. Of exports that are seen for the
	// first time together, each counts from the later of this and its own time.
	AcceptedAt time.Time
	Spec       v1alpha1.MemberExportSpec
	// Generation is that of the MemberExport.
	Generation int64
	// Seen is the hub's record of the export; nil: there is none.
	Seen *v1alpha1.SeenExport

	// set by Merge
	sequence int64 // as SeenExport's
	ports    map[portID]*v1alpha1.ServicePort
}

// ExportOf is the export of a member that was accepted at a time.
func ExportOf(e *v1alpha1.MemberExport, cluster fleet.ClusterName, acceptedAt time.Time) Export {
	return Export{Cluster: cluster, AcceptedAt: acceptedAt, Spec: e.Spec, Generation: e.Generation, Seen: e.Status.Seen}
}

// recorded tells whether the record is about this very version of the export.
func (e *Export) recorded() bool {
	return e.Seen != nil && e.Seen.ExportUID == e.Spec.ExportUID && e.Seen.Generation == e.Generation
}

// recordedWith tells whether the record says that the export had the value of a
// property that was in force, or differed from it.
func (e *Export) recordedWith(property string, differs bool) bool {
	return e.recorded() && slices.Contains(e.Seen.Differs, property) == differs
}

// Merged is the merge of all exports of one service.
type Merged struct {
	Import     *v1alpha1.FleetServiceSpec // nil: no cluster exports it
	Conditions map[fleet.ClusterName][]condition.Condition
	Seen       map[fleet.ClusterName]v1alpha1.SeenExport // the records to keep
}

// Merge combines all exports of one service, one from each cluster. inForce is the
// last merge, or the FleetService where nothing else is known of it; nil: there is
// none.
//
// A value that is in force stays while an export has it (KEP-1645 leaves it to the
// implementation to favour what is in use). Where no export has it, the senior
// export decides: the one that the hub saw first. All exports of a service that
// disagree get the condition Conflict. A conflict that ended leaves no trace.
func Merge(exports []Export, inForce *v1alpha1.FleetServiceSpec) Merged {
	if len(exports) == 0 {
		return Merged{}
	}
	var last *Export // inForce as if it was an export
	if inForce != nil {
		last = &Export{Spec: v1alpha1.MemberExportSpec{ServiceProperties: inForce.ServiceProperties}}
		for _, p := range inForce.Ports {
			last.Spec.Ports = append(last.Spec.Ports, p.ServicePort)
		}
		last.ports = portsByID(&last.Spec)
	}
	m := merger{exports: bySeniority(exports, inForce), last: last, differs: map[fleet.ClusterName][]string{}}
	merged := &v1alpha1.FleetServiceSpec{Service: m.exports[0].Spec.Service}
	merged.Ports = m.mergePorts()
	m.mergeProperties(&merged.ServiceProperties)
	for _, e := range m.exports {
		merged.Clusters = append(merged.Clusters, v1alpha1.ExportingCluster{Name: string(e.Cluster), ExportRecord: e.record()})
	}
	byName := func(a, b v1alpha1.ExportingCluster) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(merged.Clusters, byName)
	merged.Former = formerOf(inForce, merged.Clusters)
	return Merged{Import: merged, Conditions: conditions(m.exports, m.conflicts), Seen: m.seen()}
}

// merger is a merge that is being made.
type merger struct {
	exports   []Export // senior first
	last      *Export  // what was in force; nil: unknown
	conflicts []conflict
	differs   map[fleet.ClusterName][]string
}

func (m *merger) seen() map[fleet.ClusterName]v1alpha1.SeenExport {
	all := map[fleet.ClusterName]v1alpha1.SeenExport{}
	for _, e := range m.exports {
		all[e.Cluster] = v1alpha1.SeenExport{ExportRecord: e.record(), Generation: e.Generation, Differs: m.differs[e.Cluster]}
	}
	return all
}

func (e *Export) record() v1alpha1.ExportRecord {
	return v1alpha1.ExportRecord{ExportUID: e.Spec.ExportUID, Sequence: e.sequence}
}

// bySeniority returns the exports, the senior first, each with its sequence: as
// recorded with it, or else with the import. Exports without a record come last, in
// the order of their times; that of a member is not before its acceptance.
func bySeniority(exports []Export, inForce *v1alpha1.FleetServiceSpec) []Export {
	sorted := slices.Clone(exports)
	highest := int64(0)
	known := map[string]v1alpha1.ExportRecord{}
	if inForce != nil {
		for _, c := range slices.Concat(inForce.Clusters, inForce.Former) {
			known[c.Name] = c.ExportRecord
			highest = max(highest, c.Sequence)
		}
	}
	for i := range sorted {
		e := &sorted[i]
		e.ports = portsByID(&e.Spec)
		if record, ok := known[string(e.Cluster)]; ok && record.ExportUID == e.Spec.ExportUID {
			e.sequence = record.Sequence
		}
		if e.Seen != nil && e.Seen.ExportUID == e.Spec.ExportUID {
			e.sequence = e.Seen.Sequence
		}
		highest = max(highest, e.sequence)
	}
	slices.SortFunc(sorted, func(a, b Export) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), a.since().Compare(b.since()), cmp.Compare(a.Cluster, b.Cluster))
	})
	first := 0 // of those with a record
	for first < len(sorted) && sorted[first].sequence == 0 {
		first++
	}
	for i := range sorted[:first] {
		sorted[i].sequence = highest + int64(i) + 1
	}
	return slices.Concat(sorted[first:], sorted[:first])
}

// since is the time from which an export without a record counts.
func (e *Export) since() time.Time {
	if e.AcceptedAt.After(e.Spec.ExportedAt.Time) {
		return e.AcceptedAt
	}
	return e.Spec.ExportedAt.Time
}

// maxFormer is how many clusters are remembered that exported a service and no longer do.
const maxFormer = 32

// formerOf returns the clusters of the last merge that are not in this one. Of very many
// those stay that the hub saw last.
func formerOf(last *v1alpha1.FleetServiceSpec, now []v1alpha1.ExportingCluster) []v1alpha1.ExportingCluster {
	if last == nil {
		return nil
	}
	byName := map[string]v1alpha1.ExportingCluster{}
	for _, c := range slices.Concat(last.Former, last.Clusters) {
		byName[c.Name] = c
	}
	for _, c := range now {
		delete(byName, c.Name)
	}
	former := slices.SortedFunc(maps.Values(byName), func(a, b v1alpha1.ExportingCluster) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), cmp.Compare(a.Name, b.Name))
	})
	former = former[:min(len(former), maxFormer)]
	slices.SortFunc(former, func(a, b v1alpha1.ExportingCluster) int { return cmp.Compare(a.Name, b.Name) })
	return former
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
			reasons = append(reasons, string(c.reason))
			messages = append(messages, c.message(e.Cluster))
		}
		all[e.Cluster] = []condition.Condition{condition.ExportConflicts(reasons, messages)}
	}
	return all
}
