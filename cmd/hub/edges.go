package main

import (
	"context"
	"fmt"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
)

// loadAssignments publishes what the endpoints loop makes: load assignments.
type loadAssignments struct{ xds *server.Server }

func (p loadAssignments) UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string) {
	p.xds.UpdateLoadAssignments(pool, onWire(changed), removed)
}

// snapshots publishes what the reconciler makes: everything but load assignments.
type snapshots struct {
	xds  *server.Server
	loop *endpoints.Loop
}

func (p snapshots) Publish(s rollout.Snapshot) {
	r := s.Resources
	overrides := make(map[uint64]server.Override, len(s.Overrides))
	for stream, o := range s.Overrides {
		overrides[stream] = server.Override{Listeners: onWire(o.Listeners), Routes: onWire(o.Routes)}
	}
	p.xds.SetResources(s.Pool, server.Snapshot{Generation: s.Generation, Clusters: onWire(r.Clusters), Secrets: onWire(r.Secrets),
		Listeners: onWire(r.Listeners), Routes: onWire(r.Routes), Overrides: overrides})
}

func (p snapshots) Progress(pool string) []rollout.EdgeProgress {
	var out []rollout.EdgeProgress
	for _, state := range p.xds.Edges(pool) {
		progress := rollout.EdgeProgress{Edge: identified(state.Edge), Stream: state.Edge.Stream, Answered: state.Answered}
		for _, n := range state.Nacks {
			progress.Nacked = append(progress.Nacked, rollout.ResourceNack{
				Resource: rollout.ResourceID{TypeURL: n.TypeURL, Name: n.Name}, Version: n.Version, Message: n.Message,
				Fresh: n.Applied == "", Has: n.AppliedIn})
		}
		out = append(out, progress)
	}
	return out
}

func (p snapshots) Withdraw(pool string) {
	p.xds.RemovePool(pool)
	p.loop.PoolRemoved(pool)
}

func onWire(resources []envoy.Resource) []server.Resource {
	out := make([]server.Resource, len(resources))
	for i, r := range resources {
		out[i] = server.Resource{Name: r.Name, Version: r.Version, Body: r.Body}
	}
	return out
}

// observer notifies the reconciler and the endpoints loop of what edges do.
func observer(gateways *reconciler.Reconciler, loop *endpoints.Loop, reached *reached) server.Observer {
	return server.Observer{
		Connected: func(e server.Edge) {
			loop.Connected(edgeOf(e))
			gateways.Progressed()
		},
		Disconnected: func(e server.Edge) {
			loop.Disconnected(edgeOf(e))
			gateways.Progressed()
		},
		InitialVersions: func(e server.Edge, typeURL string, versions map[string]string) {
			if typeURL == resourcev3.EndpointType {
				loop.InitialVersions(edgeOf(e), versions)
			}
		},
		Nacked:   func(e server.Edge, n server.Nack) { gateways.Nacked(e.Identity.Pool, n.TypeURL) },
		Progress: func(string) { gateways.Progressed() },
		Load: func(e server.Edge, r server.LoadReport) {
			loop.ObserveLoad(edgeOf(e), loadsOf(r))
			reached.observe(e.Identity.Region, r)
		},
	}
}

func edgeOf(e server.Edge) endpoints.Edge {
	return endpoints.Edge{Pool: e.Identity.Pool, Region: e.Identity.Region, Node: e.Node, Source: e.Source}
}

func loadsOf(r server.LoadReport) []endpoints.Load {
	out := make([]endpoints.Load, len(r.Clusters))
	for i, c := range r.Clusters {
		name := c.Assignment
		if name == "" {
			name = c.Cluster
		}
		out[i] = endpoints.Load{Assignment: name, Interval: c.Interval, Dropped: c.Dropped}
		for _, l := range c.Localities {
			out[i].Localities = append(out[i].Localities, endpoints.LocalityLoad{
				SubZone: l.SubZone, Issued: l.Issued, Succeeded: l.Success, Failed: l.Error, Open: l.InProgress})
		}
	}
	return out
}

// authorize checks an edge's identity against the EdgePools.
func authorize(pools client.Reader) func(registration.EdgeIdentity) error {
	return func(id registration.EdgeIdentity) error {
		var list v1alpha1.EdgePoolList
		if err := pools.List(context.Background(), &list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list EdgePools: %w", err)
		}
		return registration.CheckEdge(id, list.Items)
	}
}

// renew signs the next certificate of an edge, for the pool that there is now: a pool that
// was restored from a backup has another UID than the edge's present certificate.
func renew(objects client.Reader, namespace string) func(registration.EdgeIdentity, []byte) ([]byte, error) {
	return func(id registration.EdgeIdentity, request []byte) ([]byte, error) {
		var pools v1alpha1.EdgePoolList
		if err := objects.List(context.Background(), &pools, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list EdgePools: %w", err)
		}
		pool, err := registration.PoolOfEdge(id, pools.Items)
		if err != nil {
			return nil, err
		}
		id.PoolUID = string(pool.UID)
		return registrationhub.AnswerOf(context.Background(), objects, namespace,
			registrationhub.SigningRequest{Edge: id, Request: request, Life: registration.DefaultEdgeLife, Now: time.Now()})
	}
}
