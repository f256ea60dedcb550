package demo

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab/load"
)

// calm says whether nothing failed and at most 1 % of the requests took over 200 ms.
func calm(window []load.Sample) bool {
	slow := load.Count(window, func(s load.Sample) bool { return s.Took > 200*time.Millisecond })
	return load.Failed(window) == 0 && slow*100 <= len(window)
}

// recovered says whether a span is calm as a whole and also in its first second:
// otherwise a long calm rest would outweigh the second in which the link went down.
func recovered(span []load.Sample) bool {
	return len(span) > 0 && calm(span) && calm(load.Between(span, span[0].At, span[0].At.Add(time.Second)))
}

func (s *Story) cut(ctx context.Context) error {
	recorder := load.Start(ctx, s.Client("us", "store.example.com", 300))
	begin := time.Now()
	sleep(ctx, 5*time.Second)
	down := time.Now()
	if err := s.Lab.Cut("us-west"); err != nil {
		return err
	}
	sleep(ctx, s.Times.Cut)
	up := time.Now()
	err := s.Lab.Restore("us-west")
	before := load.Part(load.Between(recorder.Samples(), begin, down), "us-west")
	returned := func(samples []load.Sample) (time.Duration, bool) {
		return load.SettledAfter(samples, up, 3*time.Second, func(window []load.Sample) bool {
			return math.Abs(load.Part(window, "us-west")-before) <= before/10
		})
	}
	sleep(ctx, s.Times.Return)
	for deadline := up.Add(Full.Return); time.Now().Before(deadline); sleep(ctx, time.Second) {
		if _, ok := returned(recorder.Samples()); ok {
			break
		}
	}
	samples := recorder.Stop()
	if err != nil {
		return err
	}
	s.explainFailures(samples)
	s.set("cut_requests", float64(len(samples)))
	s.set("cut_failed", float64(load.Failed(samples)))
	s.note("us-west served %.1f %% before the cut, %.1f %% in its last 10 s", 100*before, 100*load.Part(load.Between(samples, up.Add(-10*time.Second), up), "us-west"))
	if before < 0.2 {
		return fmt.Errorf("us-west served only %.1f %% before the cut: nothing to lose", 100*before)
	}
	calmFor := s.Times.Cut - 4*time.Second
	if after, ok := load.FirstSpan(samples, down, calmFor, recovered); ok {
		s.set("cut_recovered_seconds", after.Seconds())
	} else {
		s.note("never calm for %s after the cut", calmFor)
	}
	s.note("answers over 200 ms in each second from the cut: %s", slowBySecond(samples, down, 24))
	s.note("answers over 200 ms in each second from the return: %s", slowBySecond(samples, up, 24))
	if after, ok := returned(samples); ok {
		s.set("cut_return_seconds", after.Seconds())
	}
	return nil
}

func slowBySecond(samples []load.Sample, from time.Time, seconds int) string {
	var out []string
	for i := range seconds {
		window := load.Between(samples, from.Add(time.Duration(i)*time.Second), from.Add(time.Duration(i+1)*time.Second))
		out = append(out, fmt.Sprint(load.Count(window, func(s load.Sample) bool { return s.Took > 200*time.Millisecond })))
	}
	return strings.Join(out, " ")
}

// sunset cuts off all clusters of a region, while its edge and its clients stay connected.
func (s *Story) sunset(ctx context.Context) error {
	failed, fewest := 0, math.MaxInt
	for _, night := range []struct {
		region   string
		clusters []string
	}{{"us", []string{"us-west", "us-east"}}, {"eu", []string{"eu-west"}}} {
		samples, err := s.under(ctx, s.Client(night.region, "store.example.com", 150), 3*time.Second, 8*time.Second, func() error {
			return each(night.clusters, s.Lab.Cut)
		})
		_ = each(night.clusters, s.Lab.Restore)
		if err != nil {
			return err
		}
		last := load.Between(samples, samples[len(samples)-1].At.Add(-3*time.Second), samples[len(samples)-1].At)
		if part := load.Part(last, night.clusters...); part > 0 {
			return fmt.Errorf("clusters of %s answered %.0f %% while they were cut off", night.region, 100*part)
		}
		s.note("%s in the dark: %d requests, %d failed", night.region, len(samples), load.Failed(samples))
		failed += load.Failed(samples)
		fewest = min(fewest, len(samples))
		if err := s.awaitRegion(ctx, night.region, night.clusters); err != nil {
			return err
		}
	}
	s.set("sunset_failed", float64(failed))
	s.set("sunset_requests", float64(fewest))
	return nil
}

// awaitRegion waits until a region's clients are served by its own clusters again.
func (s *Story) awaitRegion(ctx context.Context, region string, clusters []string) error {
	recorder := load.Start(ctx, s.Client(region, "store.example.com", 50))
	defer recorder.Stop()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); {
		now := time.Now()
		sleep(ctx, 2*time.Second)
		all := recorder.Samples()
		if load.Part(load.Between(all, now, now.Add(2*time.Second)), clusters...) > 0.99 {
			return nil
		}
	}
	return fmt.Errorf("region %s does not serve itself again 90 s after its clusters returned", region)
}

// rollout rolls out a new version in all clusters at once: first under GETs and
// without any preparation, then under POSTs and with a preStop sleep, which works
// only for a version that already has one.
func (s *Story) rollout(ctx context.Context) error {
	roll := func(version string, preStop int) func() error {
		return func() error { return s.deploy(ctx, s.store(version, preStop)...) }
	}
	gets, err := s.under(ctx, s.Client("us", "store.example.com", 150), 2*time.Second, 5*time.Second, roll("v2", 0))
	if err != nil {
		return err
	}
	if err := roll("v3", 3)(); err != nil {
		return err
	}
	config := s.Client("us", "store.example.com", 150)
	config.Method, config.Body = http.MethodPost, "order=1"
	posts, err := s.under(ctx, config, 2*time.Second, 5*time.Second, roll("v4", 3))
	if err != nil {
		return err
	}
	if n := load.Count(posts, func(x load.Sample) bool { return x.Version == "v4" }); n == 0 {
		return fmt.Errorf("no request was answered by the new version")
	}
	s.note("GETs: %d, %d failed; POSTs: %d, %d failed", len(gets), load.Failed(gets), len(posts), load.Failed(posts))
	s.set("rollout_failed", float64(load.Failed(gets)+load.Failed(posts)))
	s.set("rollout_requests", float64(min(len(gets), len(posts))))
	return nil
}

// store is the application that gets the load of the failure steps.
func (s *Story) store(version string, preStop int) []app {
	var apps []app
	for _, c := range clusters {
		apps = append(apps, app{"shop", "store", c, version, 4, preStop})
	}
	return apps
}

func (s *Story) edgeRollout(ctx context.Context) error {
	edges, err := s.Edges(ctx, "us")
	if err != nil {
		return err
	}
	samples, err := s.under(ctx, s.Client("us", "store.example.com", 200), 2*time.Second, 5*time.Second, func() error {
		pods := s.Lab.Hub.Client.CoreV1().Pods(edges[0].Namespace)
		if err := pods.Delete(ctx, edges[0].Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		return s.AwaitEdges(ctx, "us", edges[0].Name)
	})
	if err != nil {
		return err
	}
	s.set("edge_rollout_failed", float64(load.Failed(samples)))
	s.set("edge_rollout_requests", float64(len(samples)))
	return nil
}

// AwaitEdges waits until two edges are ready and the old one is gone.
func (s *Story) AwaitEdges(ctx context.Context, region, gone string) error {
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); sleep(ctx, 200*time.Millisecond) {
		edges, err := s.Edges(ctx, region)
		if err != nil {
			return err
		}
		ready := 0
		for _, e := range edges {
			if e.Name == gone {
				ready = -2
			}
			if e.Ready {
				ready++
			}
		}
		if ready == 2 {
			return nil
		}
	}
	return fmt.Errorf("edge %s was not replaced within 90 s", gone)
}

// hubDown kills the hub while overflow is in place and services are loaded,
// and then asks the Envoys what the restarted hub changed.
func (s *Story) hubDown(ctx context.Context) error {
	overflow := load.Start(ctx, s.Client("us", "checkout.example.com", 30))
	store := load.Start(ctx, s.Client("us", "store.example.com", 100))
	had, err := s.overflowInPlace(ctx, overflow)
	var before map[string]string
	if err == nil {
		before, err = s.Resources(ctx)
	}
	if err == nil {
		err = s.KillHub(ctx, 30*time.Second)
	}
	if err != nil {
		overflow.Stop()
		store.Stop()
		return err
	}
	down := time.Now()
	sleep(ctx, 31*time.Second)
	err = s.AwaitConnected(ctx)
	sleep(ctx, 15*time.Second)
	after, readErr := s.Resources(ctx)
	thirty, hundred := overflow.Stop(), store.Stop()
	if err != nil {
		return err
	}
	if readErr != nil {
		return readErr
	}
	s.explainFailures(thirty)
	s.explainFailures(hundred)
	s.set("hubdown_failed", float64(load.Failed(thirty)+load.Failed(hundred)))
	s.set("hubdown_requests", float64(min(len(thirty), len(hundred))))
	changed := ChangedResources(before, after)
	for _, name := range changed {
		s.note("  changed: %s", name)
	}
	s.set("hub_restart_changed_resources", float64(len(changed)))
	dead := load.Between(thirty, down.Add(5*time.Second), down.Add(30*time.Second))
	if part := load.Part(dead, "us-west"); math.Abs(part-had) > 0.05 {
		return fmt.Errorf("without a hub us-west served %.0f %% of 30 rps, want the %.0f %% that it had", 100*part, 100*had)
	}
	return nil
}

// overflowInPlace waits until us-west serves what its two pods of 10 rps take
// of 30, and gives that part. A share that is a little off is corrected within
// 10 s; a stall of the machine, in which requests gather, may make one.
func (s *Story) overflowInPlace(ctx context.Context, recorder *load.Recorder) (part float64, err error) {
	sleep(ctx, 15*time.Second)
	for deadline := time.Now().Add(30 * time.Second); ; sleep(ctx, 500*time.Millisecond) {
		now := time.Now()
		part = load.Part(load.Between(recorder.Samples(), now.Add(-5*time.Second), now.Add(-time.Second)), "us-west")
		if math.Abs(part-2.0/3) < 0.03 {
			return part, nil
		}
		if now.After(deadline) || ctx.Err() != nil {
			return part, fmt.Errorf("us-west serves %.0f %% of 30 rps, want 67 %%: overflow is not in place after 45 s", 100*part)
		}
	}
}

// healthyWhenFalse are lines of conditions that are False when all is well.
var healthyWhenFalse = regexp.MustCompile(`(?m)^Conflicted=False .*$\n?`)

// broken adds a broken route and a broken certificate beside neighbours under load.
func (s *Story) broken(ctx context.Context) error {
	samples, err := s.under(ctx, s.Client("us", "store.example.com", 150), 3*time.Second, 7*time.Second, func() error {
		if err := s.Lab.Hub.Apply(ctx, render("broken.yaml", nil)); err != nil {
			return err
		}
		_, err := s.Lab.Hub.Kubectl(ctx, nil, "patch", "gateway", "-n", "infra", "shared", "--type=json", "-p", string(render("broken-listener.yaml", nil)))
		return err
	})
	if err != nil {
		return err
	}
	s.set("badroute_neighbour_failed", float64(load.Failed(samples)))
	s.set("badroute_neighbour_requests", float64(len(samples)))
	route, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "httproute", "-n", "shop", "broken", "-o",
		`jsonpath={range .status.parents[*].conditions[?(@.status=="False")]}{.type}=False {.reason}: {.message}{"\n"}{end}`)
	if err != nil {
		return err
	}
	listener, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "gateway", "-n", "infra", "shared", "-o",
		`jsonpath={range .status.listeners[?(@.name=="broken")].conditions[?(@.status=="False")]}{.type}=False {.reason}: {.message}{"\n"}{end}`)
	if err != nil {
		return err
	}
	reported := 0
	for what, text := range map[string]string{"HTTPRoute shop/broken": route, "Gateway infra/shared, listener broken": listener} {
		text = strings.TrimSpace(healthyWhenFalse.ReplaceAllString(text, ""))
		if text != "" {
			reported++
		}
		s.note("%s: %s", what, strings.ReplaceAll(text, "\n", "\n     "))
	}
	s.set("badroute_reported", float64(reported))
	if err := s.Lab.Hub.Apply(ctx, render("neighbour.yaml", nil)); err != nil {
		return err
	}
	if err := s.Await(ctx, s.Client("us", "store.example.com", 20), "a neighbour's change", func(x load.Sample) bool { return x.Version == "changed" }); err != nil {
		return err
	}
	s.set("badroute_neighbour_change_arrived", 1)
	return nil
}
