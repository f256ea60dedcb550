package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/replica"
)

// Other replicas are told of a bounded number of clusters, however many an edge invents, and
// only of those that were reached lately.
func TestReachedIsBounded(t *testing.T) {
	network := linktest.NewNetwork()
	link, other := network.Link("hub-a"), network.Link("hub-b")
	has := map[string]bool{}
	other.Topic(reachedTopic).Subscribe(replica.Observer{
		Changed: func(_, cluster string, _ []byte) { has[cluster] = true },
		Deleted: func(_, cluster string) { delete(has, cluster) },
	})
	now := time.Unix(1_800_000_000, 0)
	r := newReached(link, func(fleet.ClusterName) bool { return true })
	r.now = func() time.Time { return now }
	link.Start()
	other.Start()
	report := func(names ...string) {
		var load server.ClusterLoad
		for _, name := range names {
			load.Localities = append(load.Localities, server.LocalityLoad{SubZone: name + "/shop/web", Success: 1})
		}
		r.observe("eu", server.LoadReport{Clusters: []server.ClusterLoad{load}})
	}
	for i := range 3 * maxReached {
		report(fmt.Sprintf("invented-%d", i))
	}
	if len(has) != maxReached {
		t.Errorf("others are told of %d clusters instead of %d", len(has), maxReached)
	}
	now = now.Add(reachedLife + time.Second)
	report("eu-west")
	if len(has) != 1 || !has["eu-west"] {
		t.Errorf("others are still told of %d clusters", len(has))
	}
}

// Clusters that an edge invents keep nobody from hearing of members.
func TestInventedClustersAreNotTold(t *testing.T) {
	network := linktest.NewNetwork()
	link, other := network.Link("hub-a"), network.Link("hub-b")
	has := map[string]bool{}
	other.Topic(reachedTopic).Subscribe(replica.Observer{Changed: func(_, cluster string, _ []byte) { has[cluster] = true }})
	r := newReached(link, func(cluster fleet.ClusterName) bool { return cluster == "eu-west" || cluster == "us-west" })
	link.Start()
	other.Start()
	report := func(region string, names ...string) {
		var load server.ClusterLoad
		for _, name := range names {
			load.Localities = append(load.Localities, server.LocalityLoad{SubZone: name + "/shop/web", Success: 1})
		}
		r.observe(region, server.LoadReport{Clusters: []server.ClusterLoad{load}})
	}
	report("eu", "eu-west")
	for i := range 2 * maxReached {
		report("us", fmt.Sprint("invented-", i))
	}
	report("eu", "us-west")
	if len(has) != 2 || !has["eu-west"] || !has["us-west"] {
		t.Errorf("others are told of %d clusters, us-west: %v", len(has), has["us-west"])
	}
	if got := r.regions("eu-west"); !slices.Equal(got, []string{"eu"}) {
		t.Errorf("eu-west was reached from %v", got)
	}
}

// What the edges of one replica reach counts on the other, as long as they reach it, and also
// on a replica that connects later.
func TestReplicasTellWhatTheirEdgesReach(t *testing.T) {
	network := linktest.NewNetwork()
	now := time.Unix(1_800_000_000, 0)
	replicaNamed := func(name string) *reached {
		link := network.Link(name)
		r := newReached(link, func(fleet.ClusterName) bool { return true })
		r.now = func() time.Time { return now }
		link.Start()
		return r
	}
	a, b := replicaNamed("hub-a"), replicaNamed("hub-b")
	report := func(r *reached, region string) {
		r.observe(region, server.LoadReport{Clusters: []server.ClusterLoad{{Localities: []server.LocalityLoad{{SubZone: "us-west/shop/web", Success: 1}}}}})
	}
	expect := func(what string, r *reached, want ...string) {
		t.Helper()
		if got := r.regions("us-west"); !slices.Equal(got, want) {
			t.Errorf("%s: us-west is reached from %v, want %v", what, got, want)
		}
	}
	report(a, "eu")
	report(b, "us")
	expect("an edge of each", a, "eu", "us")
	expect("an edge of each", b, "eu", "us")
	now = now.Add(reachedLife / 2)
	report(a, "eu")
	now = now.Add(reachedLife/2 + time.Second)
	expect("only the one of hub-a goes on", b, "eu")
	network.Cut("hub-a", "hub-b")
	report(a, "eu")
	now = now.Add(reachedLife)
	expect("hub-a is not heard", b)
	network.Heal("hub-a", "hub-b")
	report(a, "eu")
	expect("hub-a is heard again", b, "eu")
	b.observe("us", server.LoadReport{}) // no requests
	expect("a replica that has just started", replicaNamed("hub-c"), "eu")
}
