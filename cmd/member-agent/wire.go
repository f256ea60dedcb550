package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/serviceexport/agent"
)

// apiClient has limits with which 200 exports at once are pushed in about two
// seconds (client-go's own make that two minutes), and with which one agent
// still cannot flood the hub.
var apiClient = program.Client{UserAgent: name, QPS: 200, Burst: 400}

// readyzTimeout is how long one answer of /readyz may take.
const readyzTimeout = time.Second

// wire builds the program in the order of the data flow: the member's cluster, the
// hub, the exporter between them.
func wire(o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the scheme: %w", err)
		}
	}

	memberConfig, err := apiClient.Config("--kubeconfig", o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	mgr, err := newManager(o, memberConfig, scheme)
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
	if err := exporter.SetupWithManager(mgr); err != nil {
		return nil, err
	}

	identity, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	heartbeat := &agent.Heartbeat{Cluster: fleet.ClusterName(o.Cluster), Hub: hub.GetClient(), Identity: identity, Now: time.Now}
	if err := mgr.Add(heartbeat); err != nil {
		return nil, fmt.Errorf("add the heartbeat: %w", err)
	}
	return mgr, addChecks(mgr, exporter)
}

func newManager(o Options, config *rest.Config, scheme *runtime.Scheme) (ctrl.Manager, error) {
	options := ctrl.Options{
		Scheme:                 scheme,
		Cache:                  cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Client:                 client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
	}
	election := program.LeaderElection{Enabled: o.LeaderElect, Namespace: o.Namespace, Name: name, Pod: os.Getenv("POD_NAME")}
	if err := election.Configure(&options, config); err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return nil, fmt.Errorf("make the manager of this cluster: %w", err)
	}
	return mgr, nil
}

// addChecks adds /healthz, which is true while the process answers, and /readyz,
// which is true once the cluster's exports are on the hub.
func addChecks(mgr ctrl.Manager, exporter *agent.Exporter) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
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
