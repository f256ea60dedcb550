package rollout

import (
	"testing"

	"crossway.dev/crossway/pkg/fleet"
)

// An edge that refused a route connects to another replica, which does not know yet what it refuses. That replica says so, and
// the refusal stays until the edge has answered: else it would be withdrawn and made again.
func TestRefusalOfAnEdgeThatConnectsAnew(t *testing.T) {
	ref, version := fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: "web"}}, ObjectVersion{UID: "1", Generation: 2}
	r := New()
	r.objects[ref] = Object{ObjectVersion: version}
	p := &pool{name: "us", since: map[fleet.RouteRef]publication{ref: {version: version, taken: true}}, refused: map[fleet.RouteRef]Refusal{},
		outvoted: map[fleet.RouteRef]Refusal{ref: {Pool: "us", Ref: ref, Version: version, Outvoted: true}}}
	review := func(isNew bool) bool {
		r.reviewPool(p, []counted{{EdgeAnswers: EdgeAnswers{New: isNew}, of: &PoolAnswers{}}})
		_, kept := p.outvoted[ref]
		return kept
	}
	if !review(true) {
		t.Error("the refusal is gone before the edge answered")
	}
	if review(false) {
		t.Error("the refusal stays after the edge took the route")
	}
}
