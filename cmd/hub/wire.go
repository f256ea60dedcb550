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
	"k8s.io/apimachinery/pkg/types"
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
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

// wire connects the parts of the hub, in the order in which data flows.
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

	// Statuses: one writer, with a source for each producer of condition types.
	statuses := writer.New(writer.Options{Client: mgr.GetClient(), Live: mgr.GetAPIReader()})
	gatewayReports := statuses.Source("gateway", gateway.ConditionTypes()...)
	poolReports := statuses.Source("edgepools", condition.EdgePoolReadyType)
	overflowReports := statuses.Source("endpoints", condition.TypeOverflowing)

	// Edges: the xDS server, whose observer is set below.
	xds := server.New(o.faults.config(server.Config{Authorize: authorize(mgr.GetCache()), Log: log.WithName("xds")}))

	// Slices and load reports -> load assignments (frequent).
	loop := endpoints.New(endpoints.Config{Cache: mgr.GetCache(), Publisher: loadAssignments{xds}, Reporter: overflowReports,
		Events: mgr.GetEventRecorder("crossway-hub"), Elected: mgr.Elected(),
		Hub: endpoints.Hub{Place: o.place(), CIDRs: cidrs}, Log: log.WithName("endpoints")})

	// Objects -> Build -> everything else (rare).
	gateways := reconciler.New(reconciler.Options{Cache: mgr.GetCache(), Publisher: o.faults.publisher(snapshots{xds, loop}),
		Assigner: o.faults.assigner(loop), Reporter: gatewayReports, PoolReporter: poolReports,
		Events: mgr.GetEventRecorder("crossway-hub"), Elected: mgr.Elected(), CRDVersion: crdVersion(ctx, mgr)})
	xds.Observe(o.faults.observer(observer(gateways, loop)))

	// Mutual TLS, once there is something to serve.
	edges := server.NewListener(server.ListenerConfig{Server: xds, Address: o.XDSAddr, Informers: mgr.GetCache(),
		Secret: types.NamespacedName{Namespace: o.Namespace, Name: registration.XDSSecret}, Ready: gateways.Built(), Log: log})
	signer := &registrationhub.Signer{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.Namespace, Names: o.xdsNames(), Log: log.WithName("certificates")}

	// Controllers that reconcile every object once at the start wait until edges have what they need.
	members := afterBuilt{gateways.Built(), func() error { return wireMembers(mgr, cidrs) }}

	runnables := []manager.Runnable{statuses, loop, gateways, signer, edges, members}
	if o.DebugAddr != "" {
		runnables = append(runnables, program.Debug{Address: o.DebugAddr, Log: log.WithName("debug"), Dumps: map[string]program.Dump{
			"model":   gateways.DumpModel,
			"rollout": gateways.DumpRollout,
			"state":   func(context.Context) (any, error) { return loop.Dump(), nil },
			"edges":   func(context.Context) (any, error) { return xds.Describe(), nil },
		}})
	}
	metrics.Registry.MustRegister(loop)
	for _, c := range [][]prometheus.Collector{statuses.Collectors(), xds.Collectors(), gateways.Collectors()} {
		metrics.Registry.MustRegister(c...)
	}
	return mgr, errors.Join(add(mgr, runnables), addChecks(mgr, edges.Serving()))
}

func add(mgr manager.Manager, runnables []manager.Runnable) error {
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("add %T: %w", r, err)
		}
	}
	return nil
}

// afterBuilt is a Runnable of every replica that starts something after the first Build.
type afterBuilt struct {
	built <-chan struct{}
	start func() error
}

func (afterBuilt) NeedLeaderElection() bool { return false }

func (a afterBuilt) Start(ctx context.Context) error {
	select {
	case <-a.built:
		return a.start()
	case <-ctx.Done():
		return nil
	}
}

// wireMembers adds the controllers of members: their registration, and MemberExports -> FleetServices -> ServiceImports of the hub's own
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

// addChecks adds /healthz, the process responds, and /readyz, edges can connect.
func addChecks(mgr manager.Manager, serving <-chan struct{}) error {
	ready := func(*http.Request) error {
		select {
		case <-serving:
			return nil
		default:
			return errors.New("the first Build is not published yet, or there is no xDS serving certificate")
		}
	}
	return errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("edges", ready))
}

// crdVersion is the version of the Gateway API's CRDs, read once: restart the hub after an upgrade of them. Empty if the
// hub may not read it; it is not checked then.
func crdVersion(ctx context.Context, mgr manager.Manager) string {
	crd := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}}
	if err := mgr.GetAPIReader().Get(ctx, client.ObjectKey{Name: "gateways.gateway.networking.k8s.io"}, crd); err != nil {
		ctrl.Log.WithName("hub").Info("the version of the Gateway API CRDs is not known", "reason", err.Error())
		return ""
	}
	return crd.Annotations["gateway.networking.k8s.io/bundle-version"]
}
