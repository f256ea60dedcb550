package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// edge is one Envoy; its pod's name is also its node id.
type edge struct{ name, node string }

// envoysOf are the Envoys of a fleet, two in each of its regions.
func envoysOf(ctx context.Context, hub client.Client, regions int) ([]edge, error) {
	var pods corev1.PodList
	if err := hub.List(ctx, &pods, client.InNamespace(lab.System), client.MatchingLabels{"app.kubernetes.io/name": "crossway-edge"}); err != nil {
		return nil, err
	}
	var out []edge
	for _, p := range pods.Items {
		out = append(out, edge{p.Name, p.Spec.NodeName})
	}
	if len(out) != 2*regions {
		return nil, fmt.Errorf("%d edges, want two in each of %d regions", len(out), regions)
	}
	return out, nil
}

// count adds up those of an Envoy's statistics that match a regular expression.
func count(ctx context.Context, fleet *lab.Lab, e edge, filter string) (int, error) {
	page, err := fleet.Hub.Kubectl(ctx, nil, "exec", "-n", lab.System, e.name, "--",
		"bash", "/etc/crossway/edge/edge.sh", "ask", "GET", "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return 0, err
	}
	sum := 0
	for line := range strings.Lines(page) {
		if _, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				return 0, fmt.Errorf("edge %s: statistic %q", e.name, line)
			}
			sum += n
		}
	}
	return sum, nil
}

// awaitEndpoints waits until every Envoy itself counts so many endpoints.
func (b *Bench) awaitEndpoints(ctx context.Context, want int) error {
	return awaitCount(ctx, b.fleet, b.edges, `^cluster\.bench.*\.membership_total$`, want)
}

// awaitCount waits until those statistics of every Envoy that match a regular expression add up to a number.
func awaitCount(ctx context.Context, fleet *lab.Lab, envoys []edge, filter string, want int) error {
	for {
		var counts []int
		right := true
		for _, e := range envoys {
			n, err := count(ctx, fleet, e, filter)
			if err != nil {
				return err
			}
			counts = append(counts, n)
			right = right && n == want
		}
		if right {
			return nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("the edges count %v endpoints, want %d each: %w", counts, want, err)
		}
	}
}

// histogram reads sum (seconds) and count of the hub's push-to-ACK histogram of
// load assignments.
func (b *Bench) histogram(ctx context.Context) (sum, count float64, err error) {
	hub, err := b.hubPod(ctx)
	if err != nil {
		return 0, 0, err
	}
	asking := load.Client(b.fleet.DialerAt("hub"), nil)
	defer asking.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hub.Status.PodIP+":8080/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	answer, err := asking.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer answer.Body.Close()
	const name = "crossway_xds_push_to_ack_seconds_"
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), name+`sum{type="assignment"} `); ok {
			sum, err = strconv.ParseFloat(text, 64)
		} else if text, ok := strings.CutPrefix(lines.Text(), name+`count{type="assignment"} `); ok {
			count, err = strconv.ParseFloat(text, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return sum, count, lines.Err()
}
