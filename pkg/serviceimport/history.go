package serviceimport

import (
	"slices"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
)

// returnTime is how long an export may be gone and be as if it had never gone: time
// for an agent to push again what somebody deleted on the hub.
const returnTime = time.Minute

// History is what a replica remembers of one service from merge to merge. The zero
// value remembers nothing.
type History struct {
	last *v1alpha1.FleetServiceSpec // the last merge; without Clusters once no export is left
	gone []goneExport               // lately, the first to go first; at most one of each cluster
}

// goneExport is an export that is no longer there.
type goneExport struct {
	v1alpha1.ExportingCluster
	at     time.Time
	before *v1alpha1.FleetServiceSpec // what was in force when it was there
}

// Merge merges all exports of the service. recorded is the service's FleetService,
// which counts only where the replica remembers nothing; nil: there is none.
//
// An export that went and comes back soon, under the UID that it had, finds in force
// what was in force before. Without that, whoever deletes a MemberExport for a moment
// would give the service to an export that was in conflict.
func (h *History) Merge(exports []Export, recorded *v1alpha1.FleetServiceSpec, now time.Time) Merged {
	last := h.last
	if last == nil {
		last = recorded
	}
	h.gone = slices.DeleteFunc(h.gone, func(g goneExport) bool { return now.Sub(g.at) >= returnTime })
	isBack := func(g goneExport) bool {
		return slices.ContainsFunc(exports, func(e Export) bool { return isOf(e, g.ExportingCluster) })
	}
	inForce, first := last, slices.IndexFunc(h.gone, isBack)
	if first >= 0 {
		inForce = h.gone[first].before.DeepCopy()
		inForce.Clusters, inForce.Former = last.Clusters, last.Former
	}
	merged := Merge(exports, inForce)
	if first >= 0 {
		before := h.gone[first].before
		for i := range h.gone[first:] { // these went while the first was not there
			h.gone[first+i].before = before
		}
		h.gone = slices.DeleteFunc(h.gone, isBack)
	}
	h.noteGone(last, exports, now)
	switch {
	case merged.Import != nil:
		h.last = merged.Import
	case last != nil:
		h.last = last.DeepCopy()
		h.last.Clusters, h.last.Former = nil, formerOf(last, nil)
	}
	return merged
}

// noteGone notes which exports of the last merge are no longer there.
func (h *History) noteGone(last *v1alpha1.FleetServiceSpec, exports []Export, now time.Time) {
	if last == nil {
		return
	}
	for _, c := range last.Clusters {
		if !slices.ContainsFunc(exports, func(e Export) bool { return isOf(e, c) }) {
			h.gone = slices.DeleteFunc(h.gone, func(g goneExport) bool { return g.Name == c.Name })
			h.gone = append(h.gone, goneExport{c, now, last})
		}
	}
}

// Idle tells that no export is left, and that none is expected back.
func (h *History) Idle(now time.Time) bool {
	return (h.last == nil || len(h.last.Clusters) == 0) &&
		!slices.ContainsFunc(h.gone, func(g goneExport) bool { return now.Sub(g.at) < returnTime })
}

func isOf(e Export, c v1alpha1.ExportingCluster) bool {
	return c.Name == string(e.Cluster) && c.ExportUID == e.Spec.ExportUID
}
