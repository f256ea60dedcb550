package demo

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readyClusters asks, for at most a minute, until all clusters are ready.
func (s *Story) readyClusters(ctx context.Context) (int, error) {
	ready := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); sleep(ctx, 200*time.Millisecond) {
		out, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "memberclusters", "-o",
			`jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if err != nil {
			return 0, err
		}
		if ready = strings.Count(out, "True"); ready == len(clusters) {
			break
		}
	}
	return ready, nil
}

// Edge is one Envoy as the hub's cluster sees it.
type Edge struct {
	Namespace, Name string
	Region          string
	Ready           bool
}

// Edges are the edges of a region, by name; all if region is empty. A terminating
// edge is one of them, and is not ready.
func (s *Story) Edges(ctx context.Context, region string) ([]Edge, error) {
	pods, err := s.Lab.Hub.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=crossway-edge"})
	if err != nil {
		return nil, err
	}
	var out []Edge
	for _, pod := range pods.Items {
		e := Edge{Namespace: pod.Namespace, Name: pod.Name, Region: strings.TrimPrefix(pod.Spec.NodeName, "edge-")}
		e.Ready = pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if region == "" || region == e.Region {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Edge) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Admin reads a page of an Envoy's admin interface, which only its own pod can
// reach.
func (s *Story) Admin(ctx context.Context, e Edge, page string) (string, error) {
	return s.Lab.Hub.Kubectl(ctx, nil, "exec", "-n", e.Namespace, e.Name, "--", "bash", "/etc/crossway/edge/edge.sh", "ask", "GET", page)
}

// stats reads those of an Envoy's statistics whose names match a regular expression.
func (s *Story) stats(ctx context.Context, e Edge, filter string) (map[string]string, error) {
	page, err := s.Admin(ctx, e, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(page) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			out[name] = value
		}
	}
	return out, nil
}

// changes are the statistics by which an Envoy shows that a resource was
// changed: what lds and cds added, modified and removed, and for each other
// resource its version and how often it was updated.
const changes = `((cluster|listener)_(added|modified|removed)|listener_in_place_updated|update_success|config_reload|\.version)$`

// ignoredStats are those of changes that say nothing about resources: of lds and
// cds as a whole, which also count the empty response to a reconnected wildcard
// subscription; and of cluster xds, the hub itself, which follows DNS.
var ignoredStats = regexp.MustCompile(`^(listener_manager\.lds|cluster_manager\.cds|cluster\.xds)\.(update_success|version)$`)

// Resources are the statistics of all Envoys about their configuration, by edge and name.
func (s *Story) Resources(ctx context.Context) (map[string]string, error) {
	edges, err := s.Edges(ctx, "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range edges {
		stats, err := s.stats(ctx, e, changes)
		if err != nil {
			return nil, err
		}
		for name, value := range stats {
			if !ignoredStats.MatchString(name) {
				out[e.Name+" "+name] = value
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the edges have no statistics of their resources")
	}
	return out, nil
}

// ChangedResources are the names whose value differs, or that only one has.
func ChangedResources(before, after map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if now, ok := after[name]; !ok || now != before[name] {
			out = append(out, fmt.Sprintf("%s: %s -> %s", name, before[name], now))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			out = append(out, fmt.Sprintf("%s: new, %s", name, after[name]))
		}
	}
	return out
}

// AwaitConnected waits until every Envoy says that it is connected to the hub.
func (s *Story) AwaitConnected(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); sleep(ctx, 100*time.Millisecond) {
		edges, err := s.Edges(ctx, "")
		if err != nil {
			return err
		}
		connected := 0
		for _, e := range edges {
			stats, err := s.stats(ctx, e, `^control_plane\.connected_state$`)
			if err != nil {
				return err
			}
			if stats["control_plane.connected_state"] == "1" {
				connected++
			}
		}
		if connected == len(edges) && connected > 0 {
			return nil
		}
	}
	return fmt.Errorf("not all edges found the restarted hub within a minute")
}

// KillHub kills the hub's process and prevents its restart.
func (s *Story) KillHub(ctx context.Context, down time.Duration) error {
	hubs, err := s.programs(ctx, s.Lab.Hub, "crossway-hub")
	if err != nil {
		return err
	}
	for _, pod := range hubs {
		if err := s.Lab.Hub.KillPod(pod.Namespace, pod.Name, down); err != nil {
			return err
		}
	}
	return nil
}
