package reconciler

import (
	"strings"
	"testing"

	"k8s.io/client-go/tools/events"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// A NACK that rejects a route or a Gateway is one Event on that object, from
// the leader only.
func TestEvents(t *testing.T) {
	leads, recorder := false, events.NewFakeRecorder(10)
	r := New(Options{Events: recorder, Leads: func() bool { return leads }})
	gateway := fleet.ObjectRef{Kind: "Gateway", Name: fleet.ObjectName{Namespace: "infra", Name: "shared"}}
	r.rollout.SetObjects(map[fleet.ObjectRef]rollout.Object{
		gateway:       {ObjectVersion: rollout.ObjectVersion{UID: "g", Generation: 1}},
		routeRef("a"): {ObjectVersion: rollout.ObjectVersion{UID: "a", Generation: 1}},
	})
	m := model.Model{Listeners: []model.Listener{{Gateway: gateway.Name, Port: 80, Protocol: model.HTTP, Addresses: []model.Address{{Pool: "us"}},
		Chains: []model.Chain{{Name: "http", Hosts: []model.VirtualHost{{Hostname: "*", Rules: []model.Rule{{
			Origin: model.Origin{Route: routeRef("a")}, Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/"}},
			Respond: &model.Respond{StatusCode: 500}}}}}}}}}}
	snapshot := r.rollout.Publish(m, []lbsync.PoolRef{{Pool: "us"}}).Snapshots[0]
	nack := func(typeURL, version, message string) []string {
		r.inbox.Drain()
		r.Nacked(typeURL, "infra/shared/80", version, message)
		r.takeAnswers(t.Context(), r.inbox.Drain())
		var notes []string
		for len(recorder.Events) > 0 {
			notes = append(notes, <-recorder.Events)
		}
		return notes
	}
	listener, routes := snapshot.Resources.Listeners[0], snapshot.Resources.Routes[0]
	if got := nack(listener.TypeURL, listener.Version, "no"); got != nil {
		t.Errorf("a replica that does not lead emits %q", got)
	}
	leads = true
	got := nack(routes.TypeURL, routes.Version, "bad regex "+strings.Repeat("é", 1000))
	if len(got) != 1 || !strings.HasPrefix(got[0], "Warning RefusedByEdge an edge refused this generation of the route") || len(got[0]) > 1100 {
		t.Errorf("a route's events: %q", got)
	}
	if got := nack(routes.TypeURL, routes.Version, "bad regex, says another edge"); got != nil {
		t.Errorf("the second NACK of a version emits %q", got)
	}
	r.rollout.Ack(rollout.ResourceID{TypeURL: listener.TypeURL, Name: listener.Name}, listener.Version)
	snapshot = r.rollout.Publish(model.Model{Listeners: []model.Listener{{Gateway: gateway.Name, Port: 80, Protocol: model.HTTPS, Addresses: []model.Address{{Pool: "us"}},
		Chains: []model.Chain{{Name: "tls", Reject: true}}}}}, []lbsync.PoolRef{{Pool: "us"}}).Snapshots[0]
	got = nack(listener.TypeURL, snapshot.Resources.Listeners[0].Version, "address in use")
	if len(got) != 1 || !strings.HasPrefix(got[0], "Warning RefusedByEdge an edge refused this generation and keeps") {
		t.Errorf("a Gateway's events: %q", got)
	}
}
