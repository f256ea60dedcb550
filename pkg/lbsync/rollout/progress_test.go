package rollout

import (
	"fmt"
	"net/netip"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// servedIn is a Model of a Gateway that has an address in these pools.
func servedIn(pools ...string) model.Model {
	l := model.Listener{Gateway: sharedGateway.Name, Port: 80, Protocol: model.HTTP, Chains: []model.Chain{{Name: "web", Hosts: []model.VirtualHost{{Hostname: "*"}}}}}
	for _, pool := range pools {
		l.Addresses = append(l.Addresses, model.Address{Pool: pool, Address: netip.MustParseAddr("198.18.0.1")})
	}
	other := l
	other.Gateway.Name += "-2"
	return model.Model{Listeners: []model.Listener{l, other}}
}

// One Gateway in two pools, from being published to being programmed.
func TestProgress(t *testing.T) {
	r := New()
	gateway := ObjectVersion{UID: "g", Generation: 1}
	r.Publish(servedIn("us", "eu"), nil, []lbsync.PoolRef{{Pool: "us"}, {Pool: "eu"}})
	publish := func(us, eu uint64, pools ...string) {
		r.SetObject(sharedGateway, Object{ObjectVersion: gateway})
		m := servedIn(pools...)
		r.pools["us"].snapshot.Generation, r.pools["eu"].snapshot.Generation = us, eu
		r.gateways.published(&m, r.objects, r.pools)
		r.served = nil
	}
	expect := func(why, want string, edges map[string][]EdgeProgress, reconnecting bool) {
		t.Helper()
		progress := r.Progress(r.Answers(edges), reconnecting)[sharedGateway.Name]
		got := fmt.Sprintf("generation %d: %d of %d", progress.Generation, progress.Acked, progress.Connected)
		if len(progress.Unserved) > 0 {
			got += fmt.Sprint(" without ", progress.Unserved)
		}
		if len(progress.Refused) > 0 {
			got += fmt.Sprint(" refused by ", progress.Refused)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", why, got, want)
		}
	}
	on := func(us, eu uint64) map[string][]EdgeProgress {
		return map[string][]EdgeProgress{"us": {{Stream: 1, Answered: us}, {Stream: 2, Answered: us}}, "eu": {{Stream: 3, Answered: eu}}}
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

	gateway.Generation = 2
	publish(10, 10, "us", "eu")
	expect("a new generation waits for all again", "generation 2: 2 of 3", on(10, 9), false)
	nack := func(typeName, name string) ResourceNack {
		for resource := range resourcesIn(r.pools["eu"].snapshot.Resources) {
			if id := idOf(resource); id.Type() == typeName && id.Name == name {
				return ResourceNack{Resource: id, Version: resource.Version, Message: "in use"}
			}
		}
		t.Fatalf("there is no %s %s", typeName, name)
		return ResourceNack{}
	}
	edges = on(10, 10)
	other := nack("Listener", "infra/shared-2/80")
	for _, own := range []ResourceNack{nack("Listener", "infra/shared/80"), nack("RouteConfiguration", "infra/shared/80")} {
		edges["eu"][0].Nacked = []ResourceNack{other, own}
		r.Review(edges)
		expect("the only edge of eu NACKs the "+own.Resource.Type(), "generation 2: 2 of 2 refused by [eu]", edges, false)
	}
	edges["us"][0].Nacked = edges["eu"][0].Nacked[1:]
	edges["us"][1].Answered = 9
	expect("beside one of us, whose other edge is behind", "generation 2: 0 of 1 refused by [eu]", edges, false)
	own := edges["eu"][0].Nacked[1]
	own.Version = "old"
	edges = on(10, 10)
	edges["eu"][0].Nacked = []ResourceNack{other, own}
	expect("an edge NACKed what is gone, and another Gateway's listener", "generation 2: 3 of 3", edges, false)

	publish(11, 10, "us")
	expect("one pool less counts anew", "generation 2: 0 of 2", on(10, 10), false)
	expect("and is complete", "generation 2: 2 of 2", on(11, 10), false)
	gateway = ObjectVersion{UID: "recreated", Generation: 2}
	publish(12, 10, "us")
	expect("a recreated Gateway waits for all again", "generation 2: 0 of 2", on(11, 10), false)
}

// A hub that has just started: what was programmed stays so until edges had
// the time to reconnect.
func TestProgressAfterRestart(t *testing.T) {
	r := New()
	r.SetObject(sharedGateway, Object{ObjectVersion: ObjectVersion{UID: "g", Generation: 1}, Accepted: true})
	r.Publish(servedIn("us"), nil, []lbsync.PoolRef{{Pool: "us"}})
	connecting := map[string][]EdgeProgress{"us": {{}}}
	for _, test := range []struct {
		edges        map[string][]EdgeProgress
		reconnecting bool
		acked        int
	}{{nil, true, 1}, {connecting, true, 1}, {connecting, false, 0}, {nil, false, 0}} {
		if progress := r.Progress(r.Answers(test.edges), test.reconnecting)[sharedGateway.Name]; progress.Acked != test.acked {
			t.Errorf("%+v: %+v", test, progress)
		}
	}
}
