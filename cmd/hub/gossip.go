package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	"crossway.dev/crossway/pkg/replica"
)

const (
	// gossipTopic has the Beats that a replica hears at first hand, by node.
	gossipTopic = "beats"
	// beatLife is how long other replicas are told of a Beat: one that connects later would
	// take it for one that has just come.
	beatLife = 5 * time.Second
)

// signGossip signs certificates for gossip; nil: the hub has none.
func signGossip(o Options, objects client.Reader) func(registration.GossipIdentity, []byte, time.Time) ([]byte, error) {
	if !o.gossips() {
		return nil
	}
	return func(id registration.GossipIdentity, request []byte, credentialEnd time.Time) ([]byte, error) {
		return registrationhub.SignGossip(context.Background(), objects, o.Namespace,
			registrationhub.GossipRequest{Identity: id, Request: request, CredentialEnd: credentialEnd, Now: time.Now()})
	}
}

// hubGossip is the part of this replica in gossip. It is a Runnable of every replica.
type hubGossip struct {
	node *gossip.Node
	// topic has Beats for other replicas; nil: there are none.
	topic replica.Topic

	mu    sync.Mutex // guards the rest
	beats map[membership.Name]time.Time
	wake  func(fleet.ClusterName)
}

// wakes has a function called when what is known of a member has changed. It does not block.
func (g *hubGossip) wakes(wake func(fleet.ClusterName)) {
	if g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wake = wake
	}
}

// newGossip makes it; nil: the hub has no gossip. links may be nil.
func newGossip(o Options, objects client.Reader, links replica.Link) (*hubGossip, error) {
	if !o.gossips() {
		return nil, nil
	}
	g := &hubGossip{beats: map[membership.Name]time.Time{}, wake: func(fleet.ClusterName) {}}
	_, port, _ := net.SplitHostPort(o.GossipAddr) // checked by Validate
	config := gossip.Config{
		Name: membership.Replica(replicaName()), Fleet: o.ClusterSet, Listen: o.GossipAddr, Heard: g.heard, Authorize: mayGossip(objects),
		TLS: &registrationhub.ReplicaTLS{Reader: objects, Namespace: o.Namespace, Replica: replicaName()}, Log: ctrl.Log.WithName("hub").WithName("gossip"),
	}
	if ip := os.Getenv("POD_IP"); ip != "" {
		config.Advertise = net.JoinHostPort(ip, port)
	}
	if links != nil {
		g.topic = links.Topic(gossipTopic)
		config.Peers = func() []gossip.Peer { return gossipPeers(links.Replicas(), port) }
	}
	var err error
	if g.node, err = gossip.New(config); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if g.topic != nil {
		g.topic.Subscribe(replica.Observer{Changed: func(_, _ string, value []byte) {
			var beat membership.Beat
			if json.Unmarshal(value, &beat) == nil { // else another version of the hub made it
				g.node.Hear(beat)
			}
		}})
	}
	return g, nil
}

// gossipPeers are the other replicas, at their port for gossip.
func gossipPeers(replicas []replica.Replica, port string) []gossip.Peer {
	var peers []gossip.Peer
	for _, r := range replicas {
		if ip, _, err := net.SplitHostPort(r.Address); err == nil {
			peers = append(peers, gossip.Peer{Name: membership.Replica(r.Name), Address: net.JoinHostPort(ip, port)})
		}
	}
	return peers
}

// mayGossip checks a certificate against the MemberClusters.
func mayGossip(objects client.Reader) func(membership.Name, *x509.Certificate) error {
	return func(_ membership.Name, certificate *x509.Certificate) error {
		id, err := registration.GossipIdentityOf(certificate)
		if err != nil || id.Replica != "" {
			return err
		}
		var member v1alpha1.MemberCluster
		if err := objects.Get(context.Background(), client.ObjectKey{Name: string(id.Member)}, &member); err != nil {
			return fmt.Errorf("read MemberCluster %s: %w", id.Member, err)
		}
		return registration.CheckGossip(id, &member)
	}
}

// heard takes a Beat that came to this replica.
func (g *hubGossip) heard(beat membership.Beat) {
	if g.topic == nil {
		return
	}
	value, err := json.Marshal(beat)
	if err != nil {
		return // which does not happen: it was read from JSON
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beats[beat.Node] = time.Now()
	g.topic.Set(string(beat.Node), value)
}

// forget stops telling of nodes that are not heard here.
func (g *hubGossip) forget(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for node, at := range g.beats {
		if now.Sub(at) > beatLife {
			delete(g.beats, node)
			g.topic.Delete(string(node))
		}
	}
}

// NeedLeaderElection says that every replica gossips.
func (g *hubGossip) NeedLeaderElection() bool { return false }

// Start gossips until ctx ends. Without gossip the hub goes on: members are then judged by
// their Leases.
func (g *hubGossip) Start(ctx context.Context) error {
	var watch sync.WaitGroup
	watch.Go(func() { g.watch(ctx) })
	defer watch.Wait()
	if err := g.node.Start(ctx); err != nil && ctx.Err() == nil {
		ctrl.Log.WithName("hub").WithName("gossip").Error(err, "this replica does not gossip until it is started again")
	}
	return nil
}

// watch says until ctx ends which members' verdicts change.
func (g *hubGossip) watch(ctx context.Context) {
	ticker := time.NewTicker(beatLife / 2)
	defer ticker.Stop()
	before := map[membership.Name]registration.GossipWord{}
	for {
		g.mu.Lock()
		wake := g.wake
		g.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.forget(time.Now())
		case <-g.node.Changed():
		}
		now := map[membership.Name]registration.GossipWord{}
		for name, verdict := range g.node.Verdicts() {
			word := wordOf(verdict)
			if !word.Silent {
				word.Heard = time.Time{} // that it is heard again changes nothing
			}
			now[name] = word
			if cluster, ok := name.Cluster(); ok && !reflect.DeepEqual(before[name], word) {
				wake(cluster)
			}
		}
		before = now
	}
}

// word is what gossip knows of a member's agent.
func (g *hubGossip) word(cluster fleet.ClusterName) registration.GossipWord {
	if g == nil {
		return registration.GossipWord{}
	}
	return wordOf(g.node.Verdict(membership.Member(cluster)))
}

// wordOf says a verdict in the words of condition Reachable. That replicas of the hub do
// not reach a node is what the verdict is about, and no second opinion.
func wordOf(v membership.Verdict) registration.GossipWord {
	word := registration.GossipWord{Heard: v.Heard, Reached: peopleOf(v.Reached, true), Unreached: peopleOf(v.Unreached, false)}
	switch v.State {
	case membership.Unknown:
		return registration.GossipWord{}
	case membership.Alive:
		word.Reached, word.Unreached = nil, nil
	case membership.Left:
		word.Left, word.Silent = true, true
	default:
		word.Silent = true
	}
	return word
}

// peopleOf names nodes as people know them.
func peopleOf(nodes []membership.Name, replicas bool) (names []string) {
	for _, n := range nodes {
		if cluster, ok := n.Cluster(); ok {
			names = append(names, string(cluster))
		} else if replicas {
			names = append(names, "replica "+n.Pod())
		}
	}
	slices.Sort(names)
	return names
}

// hears says whether the agent of a member is heard; nil: agents do not gossip.
func (g *hubGossip) hears(o Options) func(fleet.ClusterName) bool {
	if g == nil || o.agents().Gossip == "" {
		return nil
	}
	return func(cluster fleet.ClusterName) bool {
		word := g.word(cluster)
		return !word.Heard.IsZero() && !word.Silent
	}
}

// dump says for people what gossip knows.
func (g *hubGossip) dump() string {
	if g == nil {
		return "gossip is off\n"
	}
	return g.node.Dump()
}

// collectors are the metrics of gossip.
func (g *hubGossip) collectors() []prometheus.Collector {
	if g == nil {
		return nil
	}
	return []prometheus.Collector{g.node}
}

// runnables are what the manager runs.
func (g *hubGossip) runnables() []manager.Runnable {
	if g == nil {
		return nil
	}
	return []manager.Runnable{g}
}
