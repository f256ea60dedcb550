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
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/election"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport/agent"
)

// Requests per second to each API server, and how many at once. client-go's 5
// and 10 would make 200 exports at once take two minutes; these let them go
// out in about two seconds and still keep one agent from flooding the hub.
const (
	qps   = 200
	burst = 400
)

// readyPatience is how long one answer of /readyz may take.
const readyPatience = time.Second

// wire makes the program, in the order in which exports flow: from the member,
// through the exporter, to the hub.
func wire(o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("scheme: %w", err)
		}
	}

	memberConfig, err := memberConfigOf(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	mgr, err := newManager(o, memberConfig, scheme)
	if err != nil {
		return nil, err
	}

	hubConfig, err := clientcmd.BuildConfigFromFlags("", o.HubKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--hub-kubeconfig: %w", err)
	}
	hub, err := agent.NewHub(limited(hubConfig), fleet.ClusterName(o.Cluster), scheme)
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
		return nil, fmt.Errorf("name of this pod: %w", err)
	}
	heartbeat := &agent.Heartbeat{Cluster: fleet.ClusterName(o.Cluster), Hub: hub.GetClient(), Identity: identity, Now: time.Now}
	if err := mgr.Add(heartbeat); err != nil {
		return nil, fmt.Errorf("add the heartbeat: %w", err)
	}
	return mgr, addChecks(mgr, exporter)
}

func newManager(o Options, config *rest.Config, scheme *runtime.Scheme) (ctrl.Manager, error) {
	wait := true
	lock, err := election.Lock(config, election.Lease{Namespace: o.Namespace, Name: "crossway-member-agent", Pod: os.Getenv("POD_NAME")})
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Client:                        client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: &wait}},
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress:        o.HealthAddr,
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              "crossway-member-agent",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true, // nothing runs after the manager has stopped

		LeaderElectionResourceLockInterface: lock,
	})
	if err != nil {
		return nil, fmt.Errorf("manager of this cluster: %w", err)
	}
	return mgr, nil
}

// addChecks makes the agent healthy while it runs, and ready once what the
// cluster offers is on the hub.
func addChecks(mgr ctrl.Manager, exporter *agent.Exporter) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add /healthz: %w", err)
	}
	err := mgr.AddReadyzCheck("first-push", func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), readyPatience)
		defer cancel()
		return exporter.FirstPush(ctx)
	})
	if err != nil {
		return fmt.Errorf("add /readyz: %w", err)
	}
	return nil
}

func memberConfigOf(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("outside of a cluster --kubeconfig is needed: %w", err)
		}
		return limited(config), nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return limited(config), nil
}

func limited(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = qps, burst
	config.UserAgent = "crossway-member-agent"
	return config
}
