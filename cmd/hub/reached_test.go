package main

import (
	"fmt"
	"testing"
	"time"

	"crossway.dev/crossway/internal/linktest"
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
	r := newReached(link)
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
