package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
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

// wire builds the program in the order of the data flow: the member's cluster, the
// hub, the exporter and the importer between them.
func wire(o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the scheme: %w", err)
		}
	}

	memberConfig, err := memberClient.Config("--kubeconfig", o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	mgr, leadership, err := newManager(o, memberConfig, scheme)
	if err != nil {
		return nil, err
	}

	hubConfig, err := apiClient.Config("--hub-kubeconfig", o.HubKubeconfig)
	if err != nil {
		return nil, err
	}
	hub, err := agent.NewHub(hubConfig, fleet.ClusterName(o.Cluster), scheme)
	if err != nil {
		return nil, err
	}
	if err := mgr.Add(hub); err != nil {
		return nil, fmt.Errorf("add the hub: %w", err)
	}

	exporter := agent.NewExporter(fleet.ClusterName(o.Cluster), mgr, hub)
	if err := exporter.SetupWithManager(mgr, leadership); err != nil {
		return nil, err
	}

	importer, err := newImporter(fleet.ClusterName(o.Cluster), mgr, hub)
	if err != nil {
		return nil, err
	}
	if err := importer.SetupWithManager(mgr, leadership); err != nil {
		return nil, err
	}

	identity, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	heartbeat := &agent.Heartbeat{Cluster: fleet.ClusterName(o.Cluster), Hub: hub.GetClient(), Identity: identity, Now: time.Now, Heard: exporter.Heard}
	if err := mgr.Add(leadership.EachTerm(heartbeat)); err != nil {
		return nil, fmt.Errorf("add the heartbeat: %w", err)
	}
	watchdog := &program.Watchdog{Pings: map[string]func(context.Context) error{"a writer": leadership.Ping}}
	if err := mgr.Add(watchdog); err != nil {
		return nil, fmt.Errorf("add the watchdog: %w", err)
	}
	metrics.Registry.MustRegister(program.Metrics{Program: name, Leadership: leadership, Watchdog: watchdog})
	return mgr, addChecks(mgr, watchdog, exporter)
}

// newImporter makes the importer, which follows the hub's member API.
func newImporter(name fleet.ClusterName, mgr ctrl.Manager, hub *agent.Hub) (*importagent.Importer, error) {
	api, err := importagent.NewMemberAPI(hub.GetConfig(), hub.GetAPIReader(), mgr.GetScheme())
	if err != nil {
		return nil, err
	}
	if err := mgr.Add(api); err != nil {
		return nil, fmt.Errorf("add the member API: %w", err)
	}
	return importagent.NewImporter(name, mgr, api)
}

// newManager makes the manager of this cluster, and who of the agent's replicas leads.
func newManager(o Options, config *rest.Config, scheme *runtime.Scheme) (ctrl.Manager, *program.Leadership, error) {
	leadership, err := program.LeaderElection{Enabled: o.LeaderElect, Namespace: o.Namespace, Name: name, Pod: os.Getenv("POD_NAME")}.New(config)
	if err != nil {
		return nil, nil, err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		MapperProvider:         program.Mapper(scheme, memberKinds()),
		Cache:                  cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Client:                 client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make the manager of this cluster: %w", err)
	}
	return mgr, leadership, mgr.Add(leadership)
}

// memberKinds are the kinds that the agent reads or writes in its own cluster.
func memberKinds() []program.Kind {
	return []program.Kind{{Object: &mcsv1beta1.ServiceExport{}}, {Object: &mcsv1beta1.ServiceImport{}}, {Object: &corev1.Service{}},
		{Object: &discoveryv1.EndpointSlice{}}, {Object: &corev1.Namespace{}, ClusterScoped: true}, {Object: &corev1.Node{}, ClusterScoped: true}}
}

// addChecks adds /healthz, nothing is stuck, and /readyz, which is true once the cluster's exports are on the hub.
func addChecks(mgr ctrl.Manager, watchdog *program.Watchdog, exporter *agent.Exporter) error {
	if err := mgr.AddHealthzCheck("watchdog", watchdog.Check); err != nil {
		return fmt.Errorf("add /healthz: %w", err)
	}
	err := mgr.AddReadyzCheck("first-push", func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), readyzTimeout)
		defer cancel()
		return exporter.FirstPush(ctx)
	})
	if err != nil {
		return fmt.Errorf("add /readyz: %w", err)
	}
	return nil
}
