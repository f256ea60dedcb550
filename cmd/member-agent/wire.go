package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
	identityagent "crossway.dev/crossway/pkg/registration/agent"
	"crossway.dev/crossway/pkg/registration/inventory"
	"crossway.dev/crossway/pkg/serviceexport/agent"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
)

// apiClient, for the hub, has limits with which 200 exports at once are pushed in about two
// seconds (client-go's own make that two minutes), and with which one agent
// still cannot flood the hub.
var apiClient = program.Client{UserAgent: name, QPS: 200, Burst: 400}

// memberClient has limits with which 200 imports at once, of some 1000 writes, wait
// for the API server and not for the client.
var memberClient = program.Client{UserAgent: name, QPS: 500, Burst: 1000}

// readyzTimeout is how long one answer of /readyz may take.
const readyzTimeout = time.Second

// wire builds the part of the program that needs no credential of the hub: the member's
// cluster, and the agent's way into the fleet. The rest is added once there is one.
func wire(o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the scheme: %w", err)
		}
	}
	config, err := memberClient.Config("--kubeconfig", o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	mgr, err := newManager(o, config, scheme)
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	about, err := newVersions(config)
	if err != nil {
		return nil, err
	}
	direct, err := client.New(config, client.Options{Scheme: scheme, Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("client for this cluster: %w", err)
	}
	identity, err := identityagent.New(mgr, identityagent.Options{
		Namespace: o.Namespace, Pod: cmp.Or(os.Getenv("POD_NAME"), hostname), PodUID: os.Getenv("POD_UID"),
		UserAgent: name, QPS: apiClient.QPS, Burst: apiClient.Burst, Lease: about.annotations, Leave: leaver(direct),
	})
	if err != nil {
		return nil, err
	}
	leadership, err := program.LeaderElection{
		Enabled: o.LeaderElect, Namespace: o.Namespace, Name: name, Pod: os.Getenv("POD_NAME"), Before: identity.Elected,
	}.New(config)
	if err != nil {
		return nil, err
	}
	watchdog := &program.Watchdog{Pings: map[string]func(context.Context) error{"a writer": leadership.Ping}}
	w := &work{options: o, mgr: mgr, identity: identity, leadership: leadership}
	for _, r := range []manager.Runnable{identity, leadership, w, watchdog, about, leadership.EachTerm(runnable(identity.Keep)), leadership.EachTerm(runnable(identity.Renew))} {
		if err := mgr.Add(r); err != nil {
			return nil, fmt.Errorf("add %T: %w", r, err)
		}
	}
	metrics.Registry.MustRegister(program.Metrics{Program: name, Leadership: leadership, Watchdog: watchdog})
	return mgr, addChecks(mgr, watchdog, w)
}

// leaver withdraws exports first: other clusters need time to take note. From a hub that lets
// this cluster in no more (it was revoked, or its MemberCluster deleted) nothing can be withdrawn,
// nor does anything count there.
func leaver(here client.Client) identityagent.Leaver {
	return func(ctx context.Context, hub client.Client, c identityagent.Credential) error {
		err := agent.Withdraw(ctx, hub, c.Member)
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			ctrl.Log.WithName("join").Info("the hub lets this cluster in no more: only what is here is removed", "answer", err.Error())
		} else if err != nil {
			return err
		}
		return errors.Join(importagent.RemoveImports(ctx, here), inventory.Withdraw(ctx, here))
	}
}

// runnable is a manager's Runnable that each replica runs.
type runnable func(context.Context) error

// Start implements manager.Runnable.
func (r runnable) Start(ctx context.Context) error { return r(ctx) }

// work is what the agent does with a credential of the hub: exports, imports and gossip. Every
// replica reads for it, and the leader writes.
type work struct {
	options    Options
	mgr        ctrl.Manager
	identity   *identityagent.Agent
	leadership *program.Leadership
	exporter   atomic.Pointer[agent.Exporter] // nil: there is no credential yet
}

// NeedLeaderElection says that every replica reads.
func (w *work) NeedLeaderElection() bool { return false }

// Start waits for a credential, adds what works with it, and ends with an error when the
// credential is of another member or hub: then the program starts anew.
func (w *work) Start(ctx context.Context) error {
	credential, ok := w.identity.Credential(ctx)
	if !ok {
		return nil
	}
	if err := w.add(credential); err != nil {
		return err
	}
	return w.identity.AwaitOther(ctx, credential)
}

// add builds it in the order of the data flow: the hub, the exporter and the importer
// between it and this cluster.
func (w *work) add(c identityagent.Credential) error {
	hub, err := agent.NewHub(w.identity.HubConfig(c), c.Member, w.mgr.GetScheme())
	if err != nil {
		return err
	}
	exporter := agent.NewExporter(c.Member, w.mgr, hub)
	if err := exporter.SetupWithManager(w.mgr, w.leadership); err != nil {
		return err
	}
	w.identity.OnLease(exporter.Heard)
	api, err := importagent.NewMemberAPI(w.identity.Now, name, hub.GetAPIReader(), c.Member, w.mgr.GetScheme())
	if err != nil {
		return err
	}
	importer, err := importagent.NewImporter(c.Member, w.mgr, api)
	if err != nil {
		return err
	}
	if err := importer.SetupWithManager(w.mgr, w.leadership); err != nil {
		return err
	}
	if err := inventory.New(w.mgr.GetClient(), hub.GetAPIReader(), c.Member).SetupWithManager(w.mgr, w.leadership); err != nil {
		return err
	}
	talk := newGossip(w.options, c.Member, api)
	for _, r := range []manager.Runnable{hub, api, w.leadership.EachTerm(talk)} {
		if err := w.mgr.Add(r); err != nil {
			return fmt.Errorf("add %T: %w", r, err)
		}
	}
	w.exporter.Store(exporter)
	return nil
}

// ready returns nil once the cluster's exports are on the hub, or what keeps them.
func (w *work) ready(ctx context.Context) error {
	if err := w.identity.Ready(); err != nil {
		return err
	}
	exporter := w.exporter.Load()
	if exporter == nil {
		return errors.New("this cluster has no credential of the hub yet")
	}
	return exporter.FirstPush(ctx)
}

// newManager makes the manager of this cluster.
func newManager(o Options, config *rest.Config, scheme *runtime.Scheme) (ctrl.Manager, error) {
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		MapperProvider:         program.Mapper(scheme, memberKinds()),
		Cache:                  cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Client:                 client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager of this cluster: %w", err)
	}
	return mgr, nil
}

// memberKinds are the kinds that the agent reads or writes in its own cluster.
func memberKinds() []program.Kind {
	kinds := []program.Kind{{Object: &mcsv1beta1.ServiceExport{}}, {Object: &mcsv1beta1.ServiceImport{}}, {Object: &corev1.Service{}},
		{Object: &discoveryv1.EndpointSlice{}}, {Object: &corev1.Namespace{}, ClusterScoped: true}, {Object: &corev1.Node{}, ClusterScoped: true}}
	for _, optional := range registration.ClusterPropertyKinds {
		kinds = append(kinds, program.Kind{Object: registration.OptionalObject(optional), ClusterScoped: true})
	}
	return kinds
}

// addChecks adds /healthz, nothing is stuck, and /readyz, which says what keeps the
// cluster's exports from the hub.
func addChecks(mgr ctrl.Manager, watchdog *program.Watchdog, w *work) error {
	if err := mgr.AddHealthzCheck("watchdog", watchdog.Check); err != nil {
		return fmt.Errorf("add /healthz: %w", err)
	}
	err := mgr.AddReadyzCheck("work", func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), readyzTimeout)
		defer cancel()
		return w.ready(ctx)
	})
	if err != nil {
		return fmt.Errorf("add /readyz: %w", err)
	}
	return nil
}
