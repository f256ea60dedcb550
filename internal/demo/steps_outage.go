package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// Outage is what a time without the hub's API server was like.
type Outage struct {
	Failed, Requests int
	// Overflow is how long after the first request at 30 per second the split was 20/10.
	Overflow time.Duration
	// Restarts are those of the programs of Crossway in the hub's cluster and in all members.
	Restarts int
}

// FreezeHubAPI stops the hub's API server for a while. When the leader's Lease has ended, or, where restart says so, when
// all hubs have been killed and serve again, demand moves beyond capacity, and then a cluster is cut off.
func (s *Story) FreezeHubAPI(ctx context.Context, restart bool) (Outage, error) {
	before, err := s.restarts(ctx)
	if err != nil {
		return Outage{}, err
	}
	seen, err := s.freeze(ctx, restart)
	if err != nil {
		return Outage{}, err
	}
	after, err := s.restarts(ctx)
	if err != nil {
		return Outage{}, err
	}
	outage := Outage{Failed: load.Failed(seen.store) + load.Failed(seen.checkout), Requests: min(len(seen.store), len(seen.checkout)), Restarts: after - before}
	if part := load.Part(load.Between(seen.store, seen.cut.Add(-5*time.Second), seen.cut), "us-east"); part < 0.2 {
		return outage, fmt.Errorf("us-east served only %.1f %% before it was cut off: nothing to lose", 100*part)
	}
	// A connection that was begun while the link was down may be made as soon as it is up.
	if n := load.Count(load.Between(seen.store, seen.cutEnd.Add(-3*time.Second), seen.cutEnd), func(sample load.Sample) bool {
		return sample.Cluster == "us-east" && sample.At.Add(sample.Took).Before(seen.cutEnd)
	}); n > 0 {
		return outage, fmt.Errorf("us-east answered %d requests while it was cut off", n)
	}
	s.note("us-west's part of 30 rps in each second: %s", partBySecond(seen.checkout, "us-west", seen.rise, 40))
	var settled bool
	outage.Overflow, settled = load.SettledAfter(seen.checkout, seen.rise, 10*time.Second, twentyOfThirty)
	if !settled {
		return outage, fmt.Errorf("30 requests per second never settled at 20/10 for 10 s")
	}
	return outage, s.AwaitConnected(ctx)
}

// frozenTime is what clients saw of two services while the hub's API server did not answer.
type frozenTime struct {
	store, checkout   []load.Sample
	rise, cut, cutEnd time.Time // checkout's first request; a cluster's absence
}

// freeze freezes the API server under load, and ends some time after it answers again.
func (s *Story) freeze(ctx context.Context, restart bool) (seen frozenTime, err error) {
	hubs, err := s.programs(ctx, s.Lab.Hub, "crossway-hub")
	if err != nil {
		return seen, err
	}
	store := load.Start(ctx, s.Client("us", "store.example.com", 100))
	defer store.Stop()
	sleep(ctx, 3*time.Second)
	s.Lab.Hub.FreezeAPIServer()
	defer s.Lab.Hub.ThawAPIServer()
	thaw := time.Now().Add(s.Times.Frozen)
	if restart {
		err = s.restartHub(ctx, hubs)
	} else {
		sleep(ctx, 13*time.Second) // a leader may take 10 s to renew its Lease
	}
	if err != nil {
		return seen, err
	}
	checkout := load.Start(ctx, s.Client("us", "checkout.example.com", 30))
	defer checkout.Stop()
	seen.rise = time.Now()
	sleep(ctx, 15*time.Second)
	seen.cut = time.Now()
	err = s.Lab.Cut("us-east")
	sleep(ctx, 12*time.Second)
	seen.cutEnd = time.Now()
	err = errors.Join(err, s.Lab.Restore("us-east"))
	sleep(ctx, max(time.Until(thaw), 5*time.Second))
	s.Lab.Hub.ThawAPIServer()
	sleep(ctx, s.Times.Thawed)
	seen.store, seen.checkout = store.Stop(), checkout.Stop()
	s.explainFailures(seen.store)
	s.explainFailures(seen.checkout)
	return seen, err
}

// partBySecond is a cluster's part of the answers in each second, in percent.
func partBySecond(samples []load.Sample, cluster string, from time.Time, seconds int) string {
	var out []string
	for i := range seconds {
		window := load.Between(samples, from.Add(time.Duration(i)*time.Second), from.Add(time.Duration(i+1)*time.Second))
		out = append(out, fmt.Sprintf("%.0f", 100*load.Part(window, cluster)))
	}
	return strings.Join(out, " ")
}

func (s *Story) frozen(ctx context.Context) error {
	outage, err := s.FreezeHubAPI(ctx, false)
	s.set("frozen_api_cut_failed", float64(outage.Failed))
	s.set("frozen_api_requests", float64(outage.Requests))
	s.set("frozen_api_restarts", float64(outage.Restarts))
	if outage.Overflow > 0 {
		s.set("frozen_api_overflow_seconds", outage.Overflow.Seconds())
	}
	return err
}

// restartHub kills the hubs and waits until they serve edges again, without asking an API server.
func (s *Story) restartHub(ctx context.Context, hubs []corev1.Pod) error {
	client := load.Client(s.Lab.DialerAt("hub"), nil)
	defer client.CloseIdleConnections()
	for _, hub := range hubs {
		if err := s.Lab.Hub.KillPod(hub.Namespace, hub.Name, time.Second); err != nil {
			return err
		}
	}
	killed := time.Now()
	sleep(ctx, time.Second)
	for _, hub := range hubs {
		for !says(ctx, client, "http://"+net.JoinHostPort(hub.Status.PodIP, "8081")+"/readyz") {
			if time.Since(killed) > 30*time.Second {
				return fmt.Errorf("hub %s is not ready 30 s after it was killed", hub.Name)
			}
			sleep(ctx, 100*time.Millisecond)
		}
	}
	s.note("the hub was ready %s after it was killed", time.Since(killed).Round(100*time.Millisecond))
	return nil
}

// says tells whether an address answers 200.
func says(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// programs are the pods of one program of Crossway in a cluster.
func (s *Story) programs(ctx context.Context, c *lab.Cluster, name string) ([]corev1.Pod, error) {
	pods, err := c.Client.CoreV1().Pods(lab.System).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) == 0 {
		return nil, fmt.Errorf("cluster %s runs no %s", c.Name, name)
	}
	return pods.Items, nil
}

// restarts counts how often programs of Crossway were restarted.
func (s *Story) restarts(ctx context.Context) (int, error) {
	n := 0
	count := func(c *lab.Cluster, name string) error {
		pods, err := s.programs(ctx, c, name)
		for _, pod := range pods {
			for _, status := range pod.Status.ContainerStatuses {
				n += int(status.RestartCount)
			}
		}
		return err
	}
	for _, name := range clusters {
		c, err := s.Lab.Cluster(name)
		if err != nil {
			return 0, err
		}
		if err := count(c, "crossway-member-agent"); err != nil {
			return 0, err
		}
	}
	return n, count(s.Lab.Hub, "crossway-hub")
}
