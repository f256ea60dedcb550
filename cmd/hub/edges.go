package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
)

// publisher hands what the two streams of the house make to the server, in its words.
type publisher struct {
	*server.Server
	withoutRetries bool // see disableRetries
	// poolRemoved tells the publisher of load assignments that a pool has none any more.
	poolRemoved func(pool string)
}

func (p publisher) UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string) {
	p.Server.UpdateLoadAssignments(pool, onWire(changed), removed)
}

func (p publisher) Publish(s rollout.Snapshot) {
	r := s.Resources
	routes := onWire(r.Routes)
	if p.withoutRetries {
		routes = withoutRetries(routes)
	}
	p.SetResources(s.Pool, server.Snapshot{Generation: s.Generation, Clusters: onWire(r.Clusters), Secrets: onWire(r.Secrets),
		Listeners: onWire(r.Listeners), Routes: routes, ScopedRoutes: onWire(r.ScopedRoutes)})
}

func (p publisher) Progress(pool string) []rollout.EdgeProgress {
	var out []rollout.EdgeProgress
	for _, state := range p.Applied(pool) {
		progress := rollout.EdgeProgress{Answered: state.Answered}
		for _, r := range state.Nacks {
			progress.Nacked = append(progress.Nacked, rollout.ResourceID{TypeURL: r.TypeURL, Name: r.Name})
		}
		out = append(out, progress)
	}
	return out
}

func (p publisher) Withdraw(pool string) {
	p.RemovePool(pool)
	p.poolRemoved(pool)
}

func onWire(resources []envoy.Resource) []server.Resource {
	out := make([]server.Resource, len(resources))
	for i, r := range resources {
		out[i] = server.Resource{Name: r.Name, Version: r.Version, Body: r.Body}
	}
	return out
}

// later calls what o is by the time of the call: the server is made before those that it tells, and serves after.
func later(o *server.Observer) server.Observer {
	return server.Observer{
		Connected:       func(e server.Edge) { o.Connected(e) },
		Disconnected:    func(e server.Edge) { o.Disconnected(e) },
		InitialVersions: func(e server.Edge, t string, v map[string]string) { o.InitialVersions(e, t, v) },
		Acked:           func(e server.Edge, t string, r []server.NameVersion) { o.Acked(e, t, r) },
		Nacked:          func(e server.Edge, r server.Nack) { o.Nacked(e, r) },
		Progress:        func(pool string) { o.Progress(pool) },
		Load:            func(e server.Edge, r server.LoadReport) { o.Load(e, r) },
	}
}

// observer tells the two streams what edges do.
func observer(gateways *reconciler.Reconciler, loop *endpoints.Loop) server.Observer {
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
				return
			}
			gateways.Acked(typeURL, versions)
		},
		Acked: func(_ server.Edge, typeURL string, resources []server.NameVersion) {
			if typeURL == resourcev3.EndpointType {
				return // thousands, and nobody asks
			}
			versions := make(map[string]string, len(resources))
			for _, r := range resources {
				versions[r.Name] = r.Version
			}
			gateways.Acked(typeURL, versions)
		},
		Nacked:   func(_ server.Edge, r server.Nack) { gateways.Nacked(r.TypeURL, r.Name, r.Version, r.Message) },
		Progress: func(string) { gateways.Progressed() },
		Load:     func(e server.Edge, r server.LoadReport) { loop.ObserveLoad(edgeOf(e), loadsOf(r)) },
	}
}

func edgeOf(e server.Edge) endpoints.Edge {
	return endpoints.Edge{Pool: e.Identity.Pool, Region: e.Identity.Region, Node: e.Node}
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

// identify reads who an edge is from its certificate.
func identify(certificate *x509.Certificate) (server.Identity, error) {
	id, err := registration.EdgeIdentityOf(certificate)
	return server.Identity{Pool: id.Pool, Region: id.Region, Zone: id.Zone}, err
}

// authorize holds an edge's identity against the EdgePools.
func authorize(pools client.Reader) func(server.Identity) error {
	return func(id server.Identity) error {
		var list v1alpha1.EdgePoolList
		if err := pools.List(context.Background(), &list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list EdgePools: %w", err)
		}
		return registration.CheckEdge(registration.EdgeIdentity{Pool: id.Pool, Region: id.Region, Zone: id.Zone}, list.Items)
	}
}

// listener serves edges once there is something to serve: a certificate, and the first full Build. An edge that comes
// back earlier finds nobody, keeps what it has, and tries again within half a second.
type listener struct {
	address string
	xds     *server.Server
	serving *serving
	cache   cache.Cache
	built   <-chan struct{}
	log     logr.Logger
	// up is closed when edges can connect.
	up chan struct{}
}

// NeedLeaderElection says that every replica serves edges.
func (l *listener) NeedLeaderElection() bool { return false }

// Start serves until ctx ends. Streams are cut then rather than drained: they never end by themselves, and an edge goes
// on with what it has.
func (l *listener) Start(ctx context.Context) error {
	if err := l.watchPools(ctx); err != nil {
		return err
	}
	if err := l.serving.watch(ctx); err != nil {
		return err
	}
	for _, wait := range []<-chan struct{}{l.serving.there, l.built} {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil
		}
	}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
	if err != nil {
		return fmt.Errorf("serve edges: %w", err)
	}
	g := server.NewGRPCServer(l.serving.config())
	l.xds.Register(g)
	context.AfterFunc(ctx, g.Stop)
	l.log.Info("serving edges", "address", socket.Addr().String())
	close(l.up)
	if err := g.Serve(socket); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve edges: %w", err)
	}
	return nil
}

// watchPools ends the streams of edges that their EdgePool no longer bears out.
func (l *listener) watchPools(ctx context.Context) error {
	informer, err := l.cache.GetInformer(ctx, &v1alpha1.EdgePool{})
	if err != nil {
		return fmt.Errorf("watch EdgePools: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			if before.(client.Object).GetGeneration() != after.(client.Object).GetGeneration() {
				l.xds.Reauthorize()
			}
		},
		DeleteFunc: func(any) { l.xds.Reauthorize() },
	})
	if err != nil {
		return fmt.Errorf("watch EdgePools: %w", err)
	}
	return nil
}
