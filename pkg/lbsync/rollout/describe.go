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

// Describe writes the state as text for people: snapshots, Gateways and what
// edges refuse, but no contents of resources. Sorted.
func (r *Rollout) Describe() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		p := r.pools[name]
		s := p.snapshot.Resources
		fmt.Fprintf(&out, "pool %s: snapshot %d, %d listeners, %d route configurations, %d clusters, %d secrets\n", name, p.snapshot.Generation,
			len(s.Listeners), len(s.Routes), len(s.Clusters), len(s.Secrets))
		for _, f := range slices.SortedFunc(maps.Values(p.refused), func(a, b Refusal) int { return a.Ref.Compare(b.Ref) }) {
			fmt.Fprintf(&out, " refuses %s %s%s\n", f.Ref, f.Version, describeInstead(f.Instead))
		}
		for _, e := range p.byStream() {
			e.describe(&out)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.gateways), fleet.ObjectName.Compare) {
		rollout := r.gateways[name]
		fmt.Fprintf(&out, "Gateway %s %s:", name, rollout.object)
		for _, pool := range slices.Sorted(maps.Keys(rollout.pools)) {
			fmt.Fprintf(&out, " since snapshot %d of %s,", rollout.pools[pool], pool)
		}
		fmt.Fprintf(&out, " complete %t\n", rollout.complete)
	}
	return out.String()
}

func (e *edge) describe(out *strings.Builder) {
	if len(e.verdicts)+len(e.blocked) == 0 {
		return
	}
	fmt.Fprintf(out, " edge %s:\n", e.Node)
	for _, ref := range slices.SortedFunc(maps.Keys(e.verdicts), fleet.RouteRef.Compare) {
		v := e.verdicts[ref]
		fmt.Fprintf(out, "  %s %s: %s", ref, v.version, v.state)
		if v.leftOut() {
			fmt.Fprintf(out, "%s", describeInstead(v.instead))
		}
		out.WriteByte('\n')
	}
	for _, id := range slices.SortedFunc(maps.Keys(e.blocked), ResourceID.compare) {
		fmt.Fprintf(out, "  NACKed %s\n", id)
	}
	for _, id := range slices.SortedFunc(maps.Keys(e.readmitNext), ResourceID.compare) {
		fmt.Fprintf(out, "  readmit %d of %d for %s next\n", e.readmitNext[id], len(e.suspectedFor(id)), id)
	}
}

func describeInstead(o *Object) string {
	if o == nil {
		return ", left out"
	}
	return fmt.Sprintf(", generation %d instead", o.Generation)
}
