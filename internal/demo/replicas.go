package demo

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// Hubs are the replicas of the hub, by name.
func (s *Story) Hubs(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := s.programs(ctx, s.Lab.Hub, "crossway-hub")
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, err
}

// Leader is the name of the replica that writes.
func (s *Story) Leader(ctx context.Context) (string, error) {
	lease, err := s.Lab.Hub.Client.CoordinationV1().Leases(lab.System).Get(ctx, "crossway-hub", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return ptr.Deref(lease.Spec.HolderIdentity, ""), nil
}

var metricLine = regexp.MustCompile(`(?m)^(\w+(?:\{[^}]*\})?) ([0-9.e+-]+)$`)

// HubMetrics are the metrics of one replica, by name with labels.
func (s *Story) HubMetrics(ctx context.Context, hub corev1.Pod) (map[string]float64, error) {
	client := load.Client(s.Lab.DialerAt("hub"), nil)
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(hub.Status.PodIP, "8080")+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", hub.Name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s %w", hub.Name, response.Status, err)
	}
	out := map[string]float64{}
	for _, m := range metricLine.FindAllStringSubmatch(string(body), -1) {
		if out[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
			return nil, fmt.Errorf("metric %s of %s: %w", m[1], hub.Name, err)
		}
	}
	return out, nil
}

// connected is how many edges of a pool each replica serves; who does not answer serves none.
func (s *Story) connected(ctx context.Context, pool string) (map[string]int, error) {
	hubs, err := s.Hubs(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, hub := range hubs {
		metrics, err := s.HubMetrics(ctx, hub)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		out[hub.Name] = int(metrics[`crossway_xds_connected_edges{pool="`+pool+`"}`])
	}
	return out, nil
}

// awaitSpread waits until every replica serves an edge of a pool, and gives how many replicas do.
func (s *Story) awaitSpread(ctx context.Context, pool string) (int, error) {
	var has map[string]int
	for deadline := time.Now().Add(time.Minute); ; sleep(ctx, 500*time.Millisecond) {
		var err error
		if has, err = s.connected(ctx, pool); err != nil {
			return 0, err
		}
		serving := 0
		for _, edges := range has {
			if edges > 0 {
				serving++
			}
		}
		if serving == len(has) && serving > 1 {
			return serving, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return serving, fmt.Errorf("after a minute the edges of %s are not on all replicas: %v", pool, has)
		}
	}
}

// hubReplicas is how many replicas the hub has by default.
const hubReplicas = 2

// AwaitHubs waits until all replicas are ready, and no other is left.
func (s *Story) AwaitHubs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.Lab.Hub.AwaitPods(ctx, lab.System, "app.kubernetes.io/name=crossway-hub", hubReplicas)
}

// areNew returns an error where a replica does not say that it is of the next version.
func (s *Story) areNew(ctx context.Context) error {
	hubs, err := s.Hubs(ctx)
	if err != nil {
		return err
	}
	for _, hub := range hubs {
		metrics, err := s.HubMetrics(ctx, hub)
		if err != nil {
			return err
		}
		series := fmt.Sprintf(`crossway_build_info{program="crossway-hub",version=%q}`, lab.NextVersion)
		if metrics[series] != 1 {
			return fmt.Errorf("%s has no %s, but %q", hub.Name, series, slices.DeleteFunc(slices.Collect(maps.Keys(metrics)), func(name string) bool { return !strings.HasPrefix(name, "crossway_build_info") }))
		}
	}
	return nil
}
