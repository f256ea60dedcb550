package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"text/template"
	"time"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

//go:embed manifests
var manifests embed.FS

// Story is the demo on a running fleet.
type Story struct {
	Lab     *lab.Lab
	Out     io.Writer
	Figures Figures
	// Times are how long events last.
	Times Times

	addresses map[string]string // gateway address by region
	roots     *x509.CertPool    // of the shared Gateway's certificate
}

// Times are how long the events of some steps last.
type Times struct {
	Drain  time.Duration // of a cluster, and back
	Cut    time.Duration // of a cluster's link
	Return time.Duration // for which a link is watched after it has returned, at least
	Split  time.Duration // of the hub's replicas
	Frozen time.Duration // the hub's API server
	Thawed time.Duration // for which requests are watched after it answers again
}

// Full are the times of the demo.
var Full = Times{Drain: time.Minute, Cut: 24 * time.Second, Return: 36 * time.Second,
	Split: time.Minute, Frozen: time.Minute, Thawed: 20 * time.Second}

// Brief are the shortest times that can show what the steps are about. The hub forgets the load of an edge that it hears
// nothing of after 30 s, so a split is longer. A leader's Lease lasts 15 s, and Envoy keeps an endpoint ejected for 10 s.
var Brief = Times{Drain: 30 * time.Second, Cut: 14 * time.Second, Return: 8 * time.Second,
	Split: 40 * time.Second, Frozen: 40 * time.Second, Thawed: 10 * time.Second}

// Step is one part of the story. Steps after the second do not depend on each
// other, but they share the fleet and so run one at a time.
type Step struct {
	Name string
	Tell string // what happens, in one sentence
	Run  func(*Story, context.Context) error
	// Figures that the step measures, in the order in which they are printed.
	Figures []string
}

// Steps are the story in its order.
var Steps = []Step{
	{"join", "three clusters join the fleet", (*Story).join, []string{"clusters_ready"}},
	{"export", "a ServiceExport is created; Gateway, route and ready pods are already there", (*Story).export, []string{"export_to_traffic_ms"}},
	{"local", "clients of each region are served in their region", (*Story).local, []string{"local_percent_us", "local_percent_eu", "local_requests"}},
	{"weights", "a shared Gateway with TLS, routes of another namespace, weights 90/10", (*Story).weights, []string{"weight_green_percent", "weight_requests"}},
	{"bluegreen", "blue-green between clusters: canary header, mirror, 50/50, cutover", (*Story).blueGreen,
		[]string{"canary_misrouted", "canary_requests", "mirror_received_ratio", "mirror_client_errors", "mirror_requests", "step_failed", "step_requests"}},
	{"imports", "a pod of eu-west calls " + storeName + " while exports come and go and a cluster is cut off", (*Story).imports,
		[]string{"import_home_percent", "import_failed", "import_requests", "import_cut_failed_percent", "import_cut_cured_seconds"}},
	{"capacity", "2 pods of 10 rps in us-west and eu-west, clients in us: 10, 30, 60 rps", (*Story).capacity,
		[]string{"capacity_10", "overflow_seconds", "overflow_replicas", "capacity_30", "capacity_60"}},
	{"drain", "us-west is drained over minutes under 300 rps, and gets its requests back", (*Story).drain,
		[]string{"drain_failed", "drain_requests", "drain_off_line_points", "drain_left"}},
	{"tenants", "another team adds and removes 60 hostnames, a wildcard, listeners; a certificate is renewed", (*Story).tenants,
		[]string{"tenant_websockets_closed", "tenant_websockets", "tenant_changes"}},
	{"cut", "a cluster's link goes down under 300 rps, and returns", (*Story).cut,
		[]string{"cut_failed", "cut_requests", "cut_recovered_seconds", "cut_return_seconds"}},
	{"sunset", "all member clusters of each region in turn are cut off", (*Story).sunset, []string{"sunset_failed", "sunset_requests"}},
	{"rollout", "the service rolls to a new version in every cluster", (*Story).rollout, []string{"rollout_failed", "rollout_requests"}},
	{"edge", "one edge of two is replaced", (*Story).edgeRollout, []string{"edge_rollout_failed", "edge_rollout_requests"}},
	{"hub", "all replicas of the hub are killed for 30 s, overflow in place, and restarted", (*Story).hubDown,
		[]string{"hubdown_failed", "hubdown_requests", "hub_restart_changed_resources"}},
	{"replicas", "of two hub replicas one is killed, then the leader; for a minute they do not reach each other; then the hub is upgraded", (*Story).replicas,
		[]string{"replica_failed", "replica_requests", "replica_share_points", "replica_changed_resources", "replica_late_changes", "upgrade_failed", "upgrade_requests"}},
	{"frozen", "the hub's API server answers nothing for a minute; overflow, and a cluster's link goes down", (*Story).frozen,
		[]string{"frozen_api_cut_failed", "frozen_api_requests", "frozen_api_overflow_seconds", "frozen_api_restarts"}},
	{"broken", "a broken route and a broken certificate appear beside loaded neighbours", (*Story).broken,
		[]string{"badroute_neighbour_failed", "badroute_neighbour_requests", "badroute_neighbour_change_arrived", "badroute_reported"}},
}

// Tell runs one step and prints what was expected and what was measured.
func (s *Story) Tell(ctx context.Context, step Step) error {
	fmt.Fprintf(s.Out, "\n== %s: %s\n", step.Name, step.Tell)
	began := time.Now()
	waited, _ := waitedForCPU()
	err := step.Run(s, ctx)
	for _, b := range Bounds {
		if !slices.Contains(step.Figures, b.Figure) {
			continue
		}
		verdict, measured := "ok", "not measured"
		if values, ok := s.Figures[b.Figure]; ok {
			measured = Numbers(values)
		}
		if !b.Holds(s.Figures[b.Figure]) {
			verdict = "NOT MET"
		}
		fmt.Fprintf(s.Out, "   %-34s %-14s expected %-14s %s\n", b.Figure, measured, b.Expected(), verdict)
	}
	fmt.Fprintf(s.Out, "   (%s)\n", duration(began, waited))
	if err != nil {
		return fmt.Errorf("step %s: %w", step.Name, err)
	}
	return nil
}

// note prints what happens within a step.
func (s *Story) note(format string, args ...any) { fmt.Fprintf(s.Out, "   "+format+"\n", args...) }

func (s *Story) set(figure string, values ...float64) { s.Figures[figure] = values }

// render fills in a manifest of the story.
func render(name string, values any) []byte {
	t := template.Must(template.ParseFS(manifests, "manifests/"+name))
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		panic(fmt.Sprintf("manifest %s: %v", name, err)) // our own template and values
	}
	return out.Bytes()
}

// app is one application in one cluster.
type app struct {
	Namespace, Name  string
	Cluster, Version string
	Replicas         int
	PreStop          int // seconds
}

// deploy applies applications in their clusters, all at once, and waits until
// their pods are ready and older ones are gone.
func (s *Story) deploy(ctx context.Context, apps ...app) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return each(apps, func(a app) error {
		c, err := s.Lab.Cluster(a.Cluster)
		if err != nil {
			return err
		}
		if err := c.Apply(ctx, render("app.yaml", a)); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, nil, "rollout", "status", "-n", a.Namespace, "deployment/"+a.Name, "--timeout=110s"); err != nil {
			return err
		}
		return c.AwaitPods(ctx, a.Namespace, "app="+a.Name, a.Replicas)
	})
}

// exportFrom exports a service from clusters.
func (s *Story) exportFrom(ctx context.Context, namespace, name string, clusters ...string) error {
	return each(clusters, func(cluster string) error {
		c, err := s.Lab.Cluster(cluster)
		if err != nil {
			return err
		}
		return c.Apply(ctx, render("export.yaml", app{Namespace: namespace, Name: name}))
	})
}

// each runs do for all of items at once and returns the first error.
func each[T any](items []T, do func(T) error) error {
	errs := make([]error, len(items))
	var all sync.WaitGroup
	for i, item := range items {
		all.Go(func() { errs[i] = do(item) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Client is a stream of requests of a region's clients to a host.
func (s *Story) Client(region, host string, rate float64) load.Config {
	return load.Config{
		Rate:   rate,
		URL:    "https://" + s.addresses[region] + ":443/",
		Host:   host,
		Client: s.httpClient(region, host),
	}
}

func (s *Story) httpClient(region, host string) *http.Client {
	return load.Client(s.Lab.Dialer(region), &tls.Config{RootCAs: s.roots, ServerName: host, MinVersion: tls.VersionTLS12})
}

// Await sends one request after the other until one is as expected.
func (s *Story) Await(ctx context.Context, config load.Config, what string, is func(load.Sample) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	config.Rate = 20
	for ctx.Err() == nil {
		samples := load.Run(ctx, config, 1)
		if len(samples) == 1 && is(samples[0]) {
			return nil
		}
		time.Sleep(20 * time.Millisecond) // between two tries of a person
	}
	return fmt.Errorf("waited a minute for %s", what)
}

// AwaitAnswers waits until ten requests in a row, each over its own connection, are answered: a region's edges take a
// new route one after the other, and a connection belongs to one edge.
func (s *Story) AwaitAnswers(ctx context.Context, config load.Config, what string) error {
	inRow := 0
	return s.Await(ctx, config, what, func(sample load.Sample) bool {
		config.Client.CloseIdleConnections()
		if !answered(sample) {
			inRow = 0
			return false
		}
		inRow++
		return inRow == 10
	})
}

func answered(s load.Sample) bool { return s.Status == http.StatusOK }

// sleep waits; ctx ends it early.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
