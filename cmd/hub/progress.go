package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/replica"
)

// fleetEdges are the connected edges of all replicas of the hub.
type fleetEdges struct {
	xds      *server.Server
	replicas *reconciler.Replicas
	others   func() []replica.Replica
	settling *settling
}

// settling waits until edges have had the time to find this replica, from when it serves
// them: what comes before, such as reading the caches, may take longer than that.
// It is a Runnable of every replica.
type settling struct {
	serving <-chan struct{} // closed when edges can connect
	settled chan struct{}   // closed ReconnectGrace later
}

// NeedLeaderElection says that every replica waits.
func (*settling) NeedLeaderElection() bool { return false }

// Start waits.
func (s *settling) Start(ctx context.Context) error {
	select {
	case <-s.serving:
	case <-ctx.Done():
		return nil
	}
	select {
	case <-time.After(reconciler.ReconnectGrace):
		close(s.settled)
	case <-ctx.Done():
	}
	return nil
}

// settled says whether edges have had the time to find a hub that has just started. What is
// said of all edges is not known before.
func (f fleetEdges) settled() bool {
	select {
	case <-f.settling.settled:
		return true
	default:
		return false
	}
}

// identified says who an edge is on every replica.
func identified(e server.Edge) rollout.Edge {
	return rollout.Edge{Node: e.Node, Zone: e.Identity.Zone, Source: e.Source, Since: e.Since,
		Credential: e.Identity.Credential, CA: e.CA, Begin: e.CertificateBegin, End: e.CertificateEnd}
}

func (f fleetEdges) byPool() map[string][]rollout.Edge {
	own := rollout.Answers{}
	for _, e := range f.xds.Connected() {
		answers := own[e.Identity.Pool]
		answers.Edges = append(answers.Edges, rollout.EdgeAnswers{Edge: identified(e)})
		own[e.Identity.Pool] = answers
	}
	return f.replicas.Edges(own)
}

// connected are the connected edges, with their certificates.
func (f fleetEdges) connected() []registration.ConnectedEdge {
	var all []registration.ConnectedEdge
	for pool, edges := range f.byPool() {
		for _, e := range edges {
			all = append(all, registration.ConnectedEdge{Identity: registration.EdgeIdentity{Pool: pool, Zone: e.Zone, Credential: e.Credential},
				CA: e.CA, Begin: e.Begin, End: e.End})
		}
	}
	return all
}

// usersOf names the connected edges that have a certificate of a CA, and those that may
// have one: of replicas that are not heard or have another version, unless their pods are
// gone, and of all while edges may not have found a hub that has just started.
func (f fleetEdges) usersOf(ca string) []string {
	var names []string
	byPool := f.byPool()
	for _, pool := range slices.Sorted(maps.Keys(byPool)) {
		for _, e := range byPool[pool] {
			if e.CA == ca {
				names = append(names, fmt.Sprintf("%s of EdgePool %s (credential %s)", e.Node, pool, e.Credential))
			}
		}
	}
	others := f.others()
	for _, r := range others {
		if !r.Connected && r.Listed {
			names = append(names, fmt.Sprintf("maybe edges that are connected to replica %s of the hub, which is not heard", r.Name))
		}
	}
	for _, name := range f.replicas.Unread() {
		if slices.ContainsFunc(others, func(r replica.Replica) bool { return r.Name == name && (r.Connected || r.Listed) }) {
			names = append(names, fmt.Sprintf("maybe edges that are connected to replica %s of the hub, whose answers are not read: it has another version, or too many of them", name))
		}
	}
	if !f.settled() {
		names = append(names, fmt.Sprintf("maybe edges that have not found this replica of the hub yet, which has served edges for less than %s", reconciler.ReconnectGrace))
	}
	return names
}
