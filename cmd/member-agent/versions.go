package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/program"
)

// versionInterval is between two questions for the cluster's version.
const versionInterval = time.Minute

// versions are those of the agent and of its cluster, which the hub reads on the Lease.
type versions struct {
	api     discovery.ServerVersionInterface
	cluster atomic.Value // a string
}

func newVersions(config *rest.Config) (*versions, error) {
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for the version of this cluster: %w", err)
	}
	return &versions{api: api}, nil
}

// NeedLeaderElection says that every replica asks.
func (v *versions) NeedLeaderElection() bool { return false }

// Start asks until ctx ends, so that no renewal of the Lease waits for this API server.
func (v *versions) Start(ctx context.Context) error {
	for {
		if now, err := v.api.ServerVersion(); err == nil { // else it is asked again
			v.cluster.Store(now.GitVersion)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(versionInterval):
		}
	}
}

func (v *versions) annotations() map[string]string {
	all := map[string]string{v1alpha1.AnnotationAgentVersion: program.Version()}
	if cluster, ok := v.cluster.Load().(string); ok {
		all[v1alpha1.AnnotationKubernetesVersion] = cluster
	}
	return all
}
