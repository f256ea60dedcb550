package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"crossway.dev/crossway/internal/lab/load"
)

// What follows is for tests that tell other stories on the same fleet.

// App is one application in one cluster.
type App = app

// Edge is one Envoy as the hub's cluster sees it.
type Edge = edge

// Client is a stream of requests of a region's clients to a host of the shared Gateway.
func (s *Story) Client(region, host string, rate float64) load.Config {
	return s.client(region, host, rate)
}

// Deploy applies applications in their clusters, all at once, and waits until
// their pods are ready and older ones are gone.
func (s *Story) Deploy(ctx context.Context, apps ...App) error { return s.deploy(ctx, apps...) }

// ExportFrom exports a service from clusters.
func (s *Story) ExportFrom(ctx context.Context, namespace, name string, clusters ...string) error {
	return s.exportFrom(ctx, namespace, name, clusters...)
}

// Await sends one request a time, for at most a minute, until one is as told.
func (s *Story) Await(ctx context.Context, config load.Config, what string, is func(load.Sample) bool) error {
	return s.await(ctx, config, what, is)
}

// Under runs event after before of load, and goes on with the load for after.
func (s *Story) Under(ctx context.Context, config load.Config, before, after time.Duration, event func() error) ([]load.Sample, error) {
	return s.under(ctx, config, before, after, event)
}

// Edges of a region, by name; all where region is empty.
func (s *Story) Edges(ctx context.Context, region string) ([]Edge, error) {
	return s.edges(ctx, region)
}

// Resources is what all Envoys say of their configuration; two of them differ
// in ChangedResources.
func (s *Story) Resources(ctx context.Context) (map[string]string, error) { return s.resources(ctx) }

// ChangedResources are the names whose value differs, or that only one has.
func ChangedResources(before, after map[string]string) []string {
	return changedResources(before, after)
}

// AwaitConnected waits until every Envoy says that it has its control plane.
func (s *Story) AwaitConnected(ctx context.Context) error { return s.awaitConnected(ctx) }

// AwaitEdges waits until a region has two ready edges and the one that is named is gone.
func (s *Story) AwaitEdges(ctx context.Context, region, gone string) error {
	return s.awaitEdges(ctx, region, gone)
}

// KillHub kills the hub's process and keeps it from being restarted for a time.
func (s *Story) KillHub(ctx context.Context, down time.Duration) error { return s.killHub(ctx, down) }

// Admin reads a page of an Envoy's admin interface.
func (s *Story) Admin(ctx context.Context, e Edge, page string) (string, error) {
	address, err := s.Lab.Hub.Kubectl(ctx, nil, "exec", "-n", e.Namespace, e.Name, "--", "cat", "/run/crossway/admin")
	if err != nil {
		return "", err
	}
	client := load.Client(s.Lab.DialerAt("edge-"+e.Region), nil)
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+strings.TrimSpace(address)+":9901"+page, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask edge %s: %w", e.Name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
