package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
)

// String gives the start of the UID and the generation, like "1f0c@3".
func (v ObjectVersion) String() string {
	return fmt.Sprintf("%.8s@%d", v.UID, v.Generation)
}

// Describe writes the state as text for people: snapshots, Gateways, NACKs and
// quarantined routes, but no contents of resources. Sorted.
func (r *Rollout) Describe() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		s := r.pools[name]
		fmt.Fprintf(&out, "pool %s: snapshot %d, %d listeners, %d route configurations, %d clusters, %d secrets\n", name, s.Generation,
			len(s.Resources.Listeners), len(s.Resources.Routes), len(s.Resources.Clusters), len(s.Resources.Secrets))
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.gateways), fleet.ObjectName.Compare) {
		rollout := r.gateways[name]
		fmt.Fprintf(&out, "Gateway %s %s:", name, rollout.object)
		for _, pool := range slices.Sorted(maps.Keys(rollout.pools)) {
			fmt.Fprintf(&out, " since snapshot %d of %s,", rollout.pools[pool], pool)
		}
		fmt.Fprintf(&out, " complete %t\n", rollout.complete)
	}
	for _, ref := range slices.SortedFunc(maps.Keys(r.quarantine), fleet.ObjectRef.Compare) {
		q := r.quarantine[ref]
		fmt.Fprintf(&out, "%s %s: %s", ref, q.object, q.state)
		if q.state == Suspected {
			fmt.Fprintf(&out, " for %s", q.resource)
		}
		if q.message != "" {
			fmt.Fprintf(&out, ": %s", q.message)
		}
		out.WriteByte('\n')
	}
	for _, id := range slices.SortedFunc(maps.Keys(r.readmitNext), ResourceID.compare) {
		fmt.Fprintf(&out, "%s: readmit %d of %d next, newest version ACKed %t\n", id, r.readmitNext[id], len(r.suspectedFor(id)), r.history.isAcked(id))
	}
	for _, n := range r.history.standing() {
		fmt.Fprintf(&out, "%s: NACKed as published: %s\n", n.Resource, n.Message)
	}
	return out.String()
}
