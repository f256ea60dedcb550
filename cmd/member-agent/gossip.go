package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
	"crossway.dev/crossway/pkg/membership/identity"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
)

const (
	// placeInterval is between two looks at whether the hub gossips, and where.
	placeInterval = time.Second
	// againInterval is after what has failed.
	againInterval = 30 * time.Second
)

// agentGossip is the part of this agent in gossip. Exports and imports go on without it.
type agentGossip struct {
	options Options
	member  fleet.ClusterName
	api     *importagent.MemberAPI
}

func newGossip(o Options, member fleet.ClusterName, api *importagent.MemberAPI) *agentGossip {
	return &agentGossip{options: o, member: member, api: api}
}

// Start gossips until ctx ends, which is the agent's term: two replicas of one agent are
// one node. What keeps it from that is logged, and tried again.
func (g *agentGossip) Start(ctx context.Context) error {
	for {
		err := g.gossip(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			ctrl.Log.WithName("gossip").Info("this agent does not gossip; exports and imports go on", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(againInterval):
		}
	}
}

// gossip waits for a hub that gossips, and takes part.
func (g *agentGossip) gossip(ctx context.Context) error {
	fleetName := ""
	for address := ""; address == ""; address, fleetName = g.api.Gossip() {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(placeInterval):
		}
	}
	log := ctrl.Log.WithName("gossip")
	own := identity.New(identity.Config{API: g.api.Transport(), Log: log})
	listen, advertise := g.options.gossip(os.Getenv("POD_IP"))
	node, err := gossip.New(gossip.Config{
		Name: membership.Member(g.member), Fleet: fleetName, TLS: own, Listen: listen, Advertise: advertise, Log: log,
		Authorize: func(_ membership.Name, certificate *x509.Certificate) error { return own.Check(certificate) },
		Hub: func() []string {
			if address, _ := g.api.Gossip(); address != "" {
				return []string{address}
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if err := metrics.Registry.Register(node); err != nil {
		return fmt.Errorf("metrics of gossip: %w", err)
	}
	defer func(c prometheus.Collector) { metrics.Registry.Unregister(c) }(node)
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return own.Start(ctx) })
	both.Go(func() error { return node.Start(ctx) })
	return both.Wait()
}
