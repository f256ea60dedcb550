package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/condition/writer"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/program"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

// wire joins the rooms of the hub in the order in which data flows.
func wire(ctx context.Context, o Options, cluster *rest.Config) (manager.Manager, error) {
	log := ctrl.Log.WithName("hub")
	cidrs, err := o.hubCIDRs()
	if err != nil {
		return nil, err
	}
	options := ctrl.Options{
		Scheme:                 newScheme(),
		Cache:                  cacheOptions(),
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
	}
	election := program.LeaderElection{Enabled: o.LeaderElect, Namespace: o.Namespace, Name: "crossway-hub", Pod: os.Getenv("POD_NAME")}
	if err := election.Configure(&options, cluster); err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(cluster, options)
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}

	// Verdicts: one writer, a source for each producer of condition types.
	statuses := writer.New(writer.Options{Client: mgr.GetClient(), Live: mgr.GetAPIReader()})
	gatewayVerdicts := statuses.Source("gateway", gateway.ConditionTypes()...)
	overflowVerdicts := statuses.Source("endpoints", condition.TypeOverflowing)

	// Edges: the server is told who calls; whom it tells is set once those exist.
	var told server.Observer
	xds := server.New(server.Config{Identify: identify, Authorize: authorize(mgr.GetCache()), Observer: later(&told), WarmTimeout: o.warmTimeout(), Log: log.WithName("xds")})
	out := publisher{Server: xds, withoutRetries: o.disabled(disableRetries)}

	// The fast stream: slices and load reports -> load assignments.
	loop := endpoints.New(endpoints.Config{Cache: mgr.GetCache(), Publisher: out, Reporter: overflowVerdicts,
		Hub: endpoints.Hub{Place: o.place(), CIDRs: cidrs}, Log: log.WithName("endpoints")})
	out.poolRemoved = loop.PoolRemoved

	// The rare stream: objects -> Build -> everything else.
	poolStatus := reconciler.NewPoolStatusWriter(mgr.GetClient(), mgr.GetAPIReader(), nil)
	gateways := reconciler.New(reconciler.Options{Cache: mgr.GetCache(), Publisher: out, Assigner: o.assigner(loop), Reporter: gatewayVerdicts,
		PoolStatus: poolStatus, Events: mgr.GetEventRecorder("crossway-hub"), Elected: mgr.Elected(), CRDVersion: crdVersion(ctx, mgr)})
	told = o.observer(observer(gateways, loop))

	// The way out: mutual TLS, once there is something to serve.
	certificates := newServing(mgr.GetCache(), o.Namespace, log.WithName("certificates"))
	edges := &listener{address: o.XDSAddr, xds: xds, serving: certificates, cache: mgr.GetCache(), built: gateways.Built(), log: log, up: make(chan struct{})}
	sign := &signer{client: mgr.GetClient(), live: mgr.GetAPIReader(), namespace: o.Namespace, names: o.xdsNames(), log: log.WithName("certificates")}

	// The way in: what reconciles every object once at the start waits until edges have what they need.
	members := afterwards{gateways.Built(), func() error { return wireMembers(mgr, cidrs) }}

	for _, r := range []manager.Runnable{statuses, loop, poolStatus, gateways, sign, edges, members} {
		if err := mgr.Add(r); err != nil {
			return nil, fmt.Errorf("add %T: %w", r, err)
		}
	}
	metrics.Registry.MustRegister(loop)
	for _, c := range [][]prometheus.Collector{statuses.Collectors(), xds.Collectors(), gateways.Collectors()} {
		metrics.Registry.MustRegister(c...)
	}
	return mgr, checks(mgr, edges)
}

// afterwards is a Runnable of every replica that does its work once something has happened.
type afterwards struct {
	happened <-chan struct{}
	work     func() error
}

func (afterwards) NeedLeaderElection() bool { return false }

func (a afterwards) Start(ctx context.Context) error {
	select {
	case <-a.happened:
		return a.work()
	case <-ctx.Done():
		return nil
	}
}

// wireMembers joins who the members are, and MemberExports -> FleetServices -> ServiceImports of the hub's own
// cluster. reserved are the hub's own ranges.
func wireMembers(mgr manager.Manager, reserved []netip.Prefix) error {
	registrar, err := registrationhub.NewRegistrar(mgr, reserved)
	if err != nil {
		return err
	}
	merger, err := importhub.NewMerger(mgr, reserved)
	if err != nil {
		return err
	}
	projector, err := importagent.NewProjector(mgr, mgr)
	if err != nil {
		return err
	}
	for _, add := range []func(ctrl.Manager) error{registrar.SetupWithManager, merger.SetupWithManager, projector.SetupWithManager} {
		if err := add(mgr); err != nil {
			return err
		}
	}
	return nil
}

// checks are /healthz, the process answers, and /readyz, edges can connect.
func checks(mgr manager.Manager, edges *listener) error {
	ready := func(*http.Request) error {
		select {
		case <-edges.up:
			return nil
		default:
			return errors.New("the first Build is not published yet, or there is no xDS serving certificate")
		}
	}
	return errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("edges", ready))
}

// crdVersion is the version of the Gateway API's CRDs, read once: who upgrades them restarts the hub. Without the right
// to read it, it is not judged.
func crdVersion(ctx context.Context, mgr manager.Manager) string {
	crd := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}}
	if err := mgr.GetAPIReader().Get(ctx, client.ObjectKey{Name: "gateways.gateway.networking.k8s.io"}, crd); err != nil {
		ctrl.Log.WithName("hub").Info("the version of the Gateway API CRDs is not known", "reason", err.Error())
		return ""
	}
	return crd.Annotations["gateway.networking.k8s.io/bundle-version"]
}
