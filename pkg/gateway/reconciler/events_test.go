package reconciler

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// What an edge refuses is one Event on its EdgePool, from its replica, and what a whole pool
// refuses one on the route, from the leader only; neither without end.
func TestEvents(t *testing.T) {
	leads, recorder := false, events.NewFakeRecorder(100)
	r := New(Options{Events: recorder, Leads: func() bool { return leads }, Clock: clocktesting.NewFakeClock(noon)})
	gateway := fleet.ObjectRef{Kind: "Gateway", Name: fleet.ObjectName{Namespace: "infra", Name: "shared"}}
	r.rollout.SetObjects(map[fleet.ObjectRef]rollout.Object{
		gateway:       {ObjectVersion: rollout.ObjectVersion{UID: "g", Generation: 1}},
		routeRef("a"): {ObjectVersion: rollout.ObjectVersion{UID: "a", Generation: 1}},
	})
	m := model.Model{Listeners: []model.Listener{{Gateway: gateway.Name, Port: 80, Protocol: model.HTTP, Addresses: []model.Address{{Pool: "us"}},
		Chains: []model.Chain{{Name: "http", Hosts: []model.VirtualHost{{Hostname: "*", Rules: []model.Rule{{
			Origin: model.Origin{Route: routeRef("a")}, Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/"}},
			Respond: &model.Respond{StatusCode: 500}}}}}}}}}}
	resources := r.rollout.Publish(m, nil, []lbsync.PoolRef{{Pool: "us"}}).Snapshots[0].Resources
	nack := func(stream uint64, nacked envoy.Resource, message string) []string {
		g := rollout.EdgeProgress{Edge: rollout.Edge{Node: "envoy"}, Stream: stream, Answered: 1, Nacked: []rollout.ResourceNack{{
			Resource: rollout.ResourceID{TypeURL: nacked.TypeURL, Name: nacked.Name}, Version: nacked.Version, Message: message, Fresh: true}}}
		r.announce(t.Context(), r.rollout.Review(map[string][]rollout.EdgeProgress{"us": {g}}))
		var notes []string
		for len(recorder.Events) > 0 {
			notes = append(notes, <-recorder.Events)
		}
		return notes
	}
	listener, routes := resources.Listeners[0], resources.Routes[0]
	if got := nack(1, listener, "no"); len(got) != 1 || !strings.HasPrefix(got[0], `Warning RefusedByEdge edge "envoy" refuses Listener`) {
		t.Errorf("a replica that does not lead emits %q", got)
	}
	leads = true
	if got := nack(2, listener, "address in use"); len(got) != 1 || !strings.HasPrefix(got[0], `Warning RefusedByEdge edge "envoy" refuses Listener infra/shared/80`) {
		t.Errorf("an edge's events: %q", got)
	}
	if got := nack(2, listener, "address in use"); got != nil {
		t.Errorf("the same NACK again emits %q", got)
	}
	got := nack(3, routes, "bad regex "+strings.Repeat("é", 1000))
	if len(got) != 2 || !strings.HasPrefix(got[0], `Warning RefusedByEdge edge "envoy" refuses HTTPRoute shop/a;`) ||
		!strings.HasPrefix(got[1], `Warning RefusedByEdge some edges refused generation 1 of the route; EdgePool "us" leaves it out`) || len(got[1]) > 1100 {
		t.Errorf("a route's events: %q", got)
	}
	all := 0
	for stream := range uint64(100) {
		all += len(nack(10+stream, listener, "no"))
	}
	if all > 20 {
		t.Errorf("%d events of an edge that refuses without end", all)
	}
}

// An edge that is alone in its pool and refuses all routes causes as few Events.
func TestEventsOfManyRoutes(t *testing.T) {
	recorder := events.NewFakeRecorder(200)
	r := New(Options{Events: recorder, Clock: clocktesting.NewFakeClock(noon)})
	r.announce(t.Context(), rollout.Reviewed{Refused: slices.Repeat([]rollout.Refusal{{Pool: "us", Ref: routeRef("a")}}, 100)})
	if n := len(recorder.Events); n == 0 || n > 20 {
		t.Errorf("%d events", n)
	}
}
