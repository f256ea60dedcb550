package rollout

import (
	"fmt"
	"net/netip"
	"testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// wide is a Model of one Gateway with n hosts, a route and an assignment each,
// in two pools.
func wide(n int) model.Model {
	l := model.Listener{Gateway: fleet.ObjectName{Namespace: "infra", Name: "shared"}, Port: 80, Protocol: model.HTTP,
		Addresses: []model.Address{{Pool: "eu", Address: netip.MustParseAddr("198.18.2.1")}, {Pool: "us", Address: netip.MustParseAddr("198.18.1.1")}},
		Chains:    []model.Chain{{Name: "http"}}}
	var m model.Model
	for i := range n {
		name := fmt.Sprintf("route-%04d", i)
		key := "shop/" + name + "/6b2f"
		l.Chains[0].Hosts = append(l.Chains[0].Hosts, model.VirtualHost{Hostname: name + ".example.com", Rules: []model.Rule{{
			Origin: model.Origin{Route: storyRef(name), Generation: 1}, Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/"}},
			Forward: &model.Forward{Targets: []model.Target{{Assignment: key, Weight: 1}}},
		}}})
		m.Assignments = append(m.Assignments, model.Assignment{Key: key, Route: storyRef(name), Protocol: model.HTTP1,
			Backends: []model.WeightedBackend{{Backend: fleet.Backend{Kind: fleet.Import, Name: storyRef(name).Name}, Port: 8080, PortName: "http", Weight: 1}}})
	}
	m.Listeners = []model.Listener{l}
	return m
}

// BenchmarkPublish1000 changes one route of 1000 and publishes to two pools.
func BenchmarkPublish1000(b *testing.B) {
	r := New()
	pools := []lbsync.PoolRef{{Pool: "us", Region: "us"}, {Pool: "eu", Region: "eu"}}
	m := wide(1000)
	r.Publish(m, nil, pools)
	generation, snapshots := int64(1), 0
	b.ReportAllocs()
	for b.Loop() {
		generation++
		m = changed(m, 500, generation)
		snapshots += len(r.Publish(m, nil, pools).Snapshots)
	}
	if snapshots < 2*b.N {
		b.Fatalf("%d snapshots of %d", snapshots, b.N)
	}
}

// changed is a Model in which the nth host's rule has another timeout, and all
// else is shared with its predecessor, as Build's memo does.
func changed(m model.Model, n int, generation int64) model.Model {
	listeners := append([]model.Listener(nil), m.Listeners...)
	chains := append([]model.Chain(nil), listeners[0].Chains...)
	hosts := append([]model.VirtualHost(nil), chains[0].Hosts...)
	rules := append([]model.Rule(nil), hosts[n].Rules...)
	rules[0].Origin.Generation = generation
	rules[0].Request = model.HeaderChanges{Set: []model.Header{{Name: "x-generation", Value: fmt.Sprint(generation)}}}
	hosts[n].Rules, chains[0].Hosts, listeners[0].Chains = rules, hosts, chains
	m.Listeners = listeners
	return m
}
