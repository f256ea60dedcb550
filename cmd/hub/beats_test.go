package main

import (
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/replica"
)

// gossipOn is the gossip of a replica, with links to others and no certificates.
func gossipOn(t *testing.T, name string, links replica.Link) *hubGossip {
	t.Helper()
	t.Setenv("POD_NAME", name)
	g, err := newGossip(Options{Namespace: "crossway-system", ClusterSet: "crossway", GossipAddr: freeAddress(t)}, fake.NewClientBuilder().WithScheme(newScheme()).Build(), links)
	testkit.Must(t, err)
	return g
}

// What one replica hears counts on the other, and wakes who writes statuses there. A replica
// that connects when the agent has long been silent is not told of its last Beat.
func TestReplicasTellTheBeatsThatTheyHear(t *testing.T) {
	network := linktest.NewNetwork()
	linkA, linkB := network.Link("hub-a"), network.Link("hub-b")
	a, b := gossipOn(t, "hub-a", linkA), gossipOn(t, "hub-b", linkB)
	woken := make(chan fleet.ClusterName, 100)
	b.wakes(func(cluster fleet.ClusterName) { woken <- cluster })
	linkA.Start()
	linkB.Start()
	testkit.Run(t, a.Start)
	testkit.Run(t, b.Start)

	heard := time.Now()
	a.heard(membership.Beat{Node: "member:us-west", Epoch: 1, Seq: 1, Opinions: []membership.Opinion{{Of: "member:us-east"}}})
	if cluster := <-woken; cluster != "us-west" {
		t.Errorf("%s was woken", cluster)
	}
	if word := b.word("us-west"); word.Heard.Before(heard) {
		t.Errorf("hub-b knows %+v", word)
	}
	testkit.Eventually(t, "hub-b says that us-west is silent", func() bool { return b.word("us-west").Silent })
	a.forget(time.Now().Add(beatLife))
	linkC := network.Link("hub-c")
	var told []string
	linkC.Topic(gossipTopic).Subscribe(replica.Observer{Changed: func(_, node string, _ []byte) { told = append(told, node) }})
	linkC.Start()
	if slices.Contains(told, "member:us-west") || !slices.Contains(told, "hub:hub-b") {
		t.Errorf("a new replica is told of %v, want hub:hub-b without the old Beat of member:us-west", told)
	}
}
