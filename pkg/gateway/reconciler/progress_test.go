package reconciler

import (
	"fmt"
	"net/netip"
	"testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// One Gateway in two pools, from being published to being programmed.
func TestProgress(t *testing.T) {
	name := fleet.ObjectName{Namespace: "infra", Name: "shared"}
	served := func(pools ...string) *model.Model {
		l := model.Listener{Gateway: name, Port: 80}
		for _, pool := range pools {
			l.Addresses = append(l.Addresses, model.Address{Pool: pool, Address: netip.MustParseAddr("198.18.0.1")})
		}
		return &model.Model{Listeners: []model.Listener{l}}
	}
	p := progress{}
	generation := int64(1)
	publish := func(us, eu uint64, pools ...string) {
		p.published(served(pools...), func(fleet.ObjectName) int64 { return generation }, map[string]uint64{"us": us, "eu": eu})
	}
	expect := func(why, want string, edges map[string][]EdgeProgress, patient bool) {
		t.Helper()
		state := p.programming(edges, patient)[name]
		got := fmt.Sprintf("generation %d: %d of %d", state.Generation, state.Acked, state.Connected)
		if len(state.Unserved) > 0 {
			got += fmt.Sprint(" without ", state.Unserved)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", why, got, want)
		}
	}
	on := func(us, eu uint64) map[string][]EdgeProgress {
		return map[string][]EdgeProgress{"us": {{Answered: us}, {Answered: us}}, "eu": {{Answered: eu}}}
	}

	publish(5, 3, "us", "eu")
	expect("no edge", "generation 1: 0 of 0 without [eu us]", nil, true)
	expect("eu is behind", "generation 1: 2 of 3", on(5, 2), false)
	expect("all have it", "generation 1: 3 of 3", on(5, 3), false)

	publish(9, 9, "us", "eu")
	expect("other Gateways move on; this one is as it was", "generation 1: 3 of 3", on(5, 3), false)
	edges := on(5, 3)
	edges["us"][1].Answered = 0
	expect("an edge is replaced: it does not serve yet, the Gateway is", "generation 1: 3 of 3", edges, false)
	expect("all edges are gone", "generation 1: 0 of 0 without [eu us]", nil, false)

	delete(edges, "us")
	expect("those of one pool are", "generation 1: 1 of 1 without [us]", edges, false)

	generation = 2
	publish(10, 10, "us", "eu")
	expect("a new generation waits for all again", "generation 2: 2 of 3", on(10, 9), false)
	edges = on(10, 10)
	edges["eu"][0].Refused = []string{"infra/shared-2/80", "infra/shared/80"}
	expect("an edge refuses the listener", "generation 2: 2 of 3", edges, false)
	edges["eu"][0].Refused = []string{"infra/shared-2/80", "infra/shared/tls-cert"}
	expect("an edge refuses another Gateway's listener", "generation 2: 3 of 3", edges, false)

	publish(11, 10, "us")
	expect("one pool less counts anew", "generation 2: 0 of 2", on(10, 10), false)
}

// A hub that has just started: what was programmed stays so until edges had
// the time to come back.
func TestProgressAfterRestart(t *testing.T) {
	name := fleet.ObjectName{Namespace: "infra", Name: "shared"}
	p := progress{}
	m := &model.Model{Listeners: []model.Listener{{Gateway: name, Addresses: []model.Address{{Pool: "us"}}}}}
	p.published(m, func(fleet.ObjectName) int64 { return 1 }, map[string]uint64{"us": 1})
	p.remember(name)
	connecting := map[string][]EdgeProgress{"us": {{}}}
	for _, story := range []struct {
		edges   map[string][]EdgeProgress
		patient bool
		acked   int
	}{{nil, true, 1}, {connecting, true, 1}, {connecting, false, 0}, {nil, false, 0}} {
		if state := p.programming(story.edges, story.patient)[name]; state.Acked != story.acked {
			t.Errorf("%+v: %+v", story, state)
		}
	}
}
