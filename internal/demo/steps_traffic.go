package demo

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab/echo"
	"crossway.dev/crossway/internal/lab/load"
)

var clusters = []string{"us-west", "us-east", "eu-west"}

func (s *Story) join(ctx context.Context) error {
	ready, err := s.readyClusters(ctx)
	if err != nil {
		return err
	}
	s.set("clusters_ready", float64(ready))
	table, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "memberclusters,edgepools,gateway", "-A")
	if err != nil {
		return err
	}
	s.note("%s", strings.ReplaceAll(strings.TrimSpace(table), "\n", "\n   "))
	return nil
}

// export measures from the create call to the first answer that a client gets;
// it asks every 10 ms.
func (s *Story) export(ctx context.Context) error {
	if err := s.deploy(ctx, app{"shop", "first", "us-west", "v1", 4, 0}); err != nil {
		return err
	}
	recorder := load.Start(ctx, s.Client("us", "first.example.com", 100))
	sleep(ctx, time.Second)
	if n := len(recorder.Samples()); n == 0 || load.Failed(recorder.Samples()) != n {
		return fmt.Errorf("something answers for first.example.com before it is exported")
	}
	created := time.Now()
	if err := s.exportFrom(ctx, "shop", "first", "us-west"); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && load.Count(recorder.Samples(), answered) == 0; {
		sleep(ctx, 50*time.Millisecond)
	}
	for _, sample := range recorder.Stop() {
		if answered(sample) {
			s.set("export_to_traffic_ms", math.Round(float64(sample.At.Add(sample.Took).Sub(created))/float64(time.Millisecond)))
			return nil
		}
	}
	return fmt.Errorf("no answer for first.example.com 30 s after the export")
}

func (s *Story) local(ctx context.Context) error {
	var us, eu []load.Sample
	if err := each([]string{"us", "eu"}, func(region string) error {
		samples := load.Run(ctx, s.Client(region, "store.example.com", 200), 1500)
		if region == "us" {
			us = samples
		} else {
			eu = samples
		}
		return nil
	}); err != nil {
		return err
	}
	s.set("local_requests", float64(min(len(us), len(eu))))
	s.set("local_percent_us", percentFrom(us, "us-west", "us-east"))
	s.set("local_percent_eu", percentFrom(eu, "eu-west"))
	return nil
}

// percentFrom is the percentage of all requests, answered or not.
func percentFrom(samples []load.Sample, clusters ...string) float64 {
	if len(samples) == 0 {
		return 0
	}
	good := len(samples) - load.Failed(samples)
	return 100 * load.Part(samples, clusters...) * float64(good) / float64(len(samples))
}

func (s *Story) weights(ctx context.Context) error {
	config := s.Client("us", "site.example.com", 500)
	config.URL += "login"
	samples := load.Run(ctx, config, 10000)
	s.set("weight_requests", float64(len(samples)))
	s.set("weight_green_percent", percentFrom(samples, "us-east"))
	return nil
}

// stage applies one stage of the move from blue to green.
func (s *Story) stage(ctx context.Context, name string, blue, green int) error {
	return s.Lab.Hub.Apply(ctx, render("bluegreen.yaml", map[string]any{"Stage": name, "Blue": blue, "Green": green}))
}

func (s *Story) blueGreen(ctx context.Context) error {
	if err := s.canary(ctx); err != nil {
		return err
	}
	if err := s.mirror(ctx); err != nil {
		return err
	}
	failed, fewest := 0, math.MaxInt
	for _, step := range []struct {
		name        string
		blue, green int
	}{{"half", 50, 50}, {"cutover", 0, 100}} {
		samples, err := s.under(ctx, s.Client("us", "move.example.com", 250), 2*time.Second, 4*time.Second, func() error {
			return s.stage(ctx, step.name, step.blue, step.green)
		})
		if err != nil {
			return err
		}
		last := load.Between(samples, samples[len(samples)-1].At.Add(-3*time.Second), samples[len(samples)-1].At)
		want := float64(step.green) / 100
		if got := load.Part(last, "us-east"); math.Abs(got-want) > 0.02 {
			return fmt.Errorf("stage %s: green serves %.2f of the requests, want %.2f", step.name, got, want)
		}
		s.note("stage %s: %d requests, %d failed", step.name, len(samples), load.Failed(samples))
		failed += load.Failed(samples)
		fewest = min(fewest, len(samples))
	}
	s.set("step_failed", float64(failed))
	s.set("step_requests", float64(fewest))
	return nil
}

// canary sends one stream of requests with the header and one without, and counts
// which backend answered.
func (s *Story) canary(ctx context.Context) error {
	if err := s.stage(ctx, "canary", 100, 0); err != nil {
		return err
	}
	with := s.Client("us", "move.example.com", 200)
	with.Header = http.Header{"Env": {"canary"}}
	if err := s.Await(ctx, with, "the canary route", func(sample load.Sample) bool { return sample.Cluster == "us-east" }); err != nil {
		return err
	}
	var canaries, others []load.Sample
	_ = each([]bool{true, false}, func(canary bool) error {
		if canary {
			canaries = load.Run(ctx, with, 1000)
		} else {
			others = load.Run(ctx, s.Client("us", "move.example.com", 200), 1000)
		}
		return nil
	})
	s.set("canary_requests", float64(min(len(canaries), len(others))))
	s.set("canary_misrouted", float64(
		load.Count(canaries, func(sample load.Sample) bool { return !answered(sample) || sample.Cluster != "us-east" })+
			load.Count(others, func(sample load.Sample) bool { return !answered(sample) || sample.Cluster != "us-west" })))
	return nil
}

// mirror compares what the client sent with what green's pods received.
func (s *Story) mirror(ctx context.Context) error {
	if err := s.stage(ctx, "mirror", 100, 0); err != nil {
		return err
	}
	config := s.Client("us", "move.example.com", 250)
	if err := s.awaitMirror(ctx, config); err != nil {
		return err
	}
	before, err := s.received(ctx, "us-east", "site", "green")
	if err != nil {
		return err
	}
	samples := load.Run(ctx, config, 1500)
	sleep(ctx, time.Second) // a mirrored request may arrive after the answer
	after, err := s.received(ctx, "us-east", "site", "green")
	if err != nil {
		return err
	}
	s.set("mirror_requests", float64(len(samples)))
	s.set("mirror_client_errors", float64(load.Failed(samples)))
	s.set("mirror_received_ratio", float64(after-before)/float64(len(samples)))
	return nil
}

func (s *Story) awaitMirror(ctx context.Context, config load.Config) error {
	before, err := s.received(ctx, "us-east", "site", "green")
	if err != nil {
		return err
	}
	return s.Await(ctx, config, "mirrored requests at green", func(load.Sample) bool {
		now, err := s.received(ctx, "us-east", "site", "green")
		return err == nil && now > before
	})
}

// received is how many requests an application's pods have received, by their own count.
func (s *Story) received(ctx context.Context, cluster, namespace, name string) (int64, error) {
	c, err := s.Lab.Cluster(cluster)
	if err != nil {
		return 0, err
	}
	pods, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		return 0, err
	}
	client := load.Client(s.Lab.DialerAt(cluster), nil)
	defer client.CloseIdleConnections()
	var sum int64
	for _, pod := range pods.Items {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Status.PodIP+":8080/-/count", nil)
		if err != nil {
			return 0, err
		}
		response, err := client.Do(request)
		if err != nil {
			return 0, fmt.Errorf("ask pod %s: %w", pod.Name, err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		var count echo.Count
		if err == nil {
			err = json.Unmarshal(body, &count)
		}
		if err != nil {
			return 0, fmt.Errorf("ask pod %s: %w", pod.Name, err)
		}
		sum += count.Requests
	}
	return sum, nil
}

// under runs event under load. The load begins earlier than event, by before, and goes on afterwards, for after.
func (s *Story) under(ctx context.Context, config load.Config, before, after time.Duration, event func() error) ([]load.Sample, error) {
	recorder := load.Start(ctx, config)
	sleep(ctx, before)
	err := event()
	sleep(ctx, after)
	samples := recorder.Stop()
	s.explainFailures(samples)
	return samples, err
}

// explainFailures prints the first few failures, for a figure says nothing of the cause.
func (s *Story) explainFailures(samples []load.Sample) {
	shown := 0
	for _, sample := range samples {
		if answered(sample) {
			continue
		}
		if shown++; shown > 5 {
			s.note("  ... %d failures in all", load.Failed(samples))
			return
		}
		s.note("  failed at %s after %s: status %d %s", sample.At.Format("15:04:05.000"), sample.Took.Round(time.Millisecond), sample.Status, sample.Error)
	}
}

// twentyOfThirty says whether us-west answered two thirds of the requests, give or take 3 of 30: two edges send whole
// requests, so no second of 30 is exactly 20/10.
func twentyOfThirty(window []load.Sample) bool {
	const rounding = 1e-9
	return math.Abs(load.Part(window, "us-west")-2.0/3) <= 0.10+rounding
}

// capacity sends each rate for as long as it takes to be sure.
func (s *Story) capacity(ctx context.Context) error {
	rates := func(samples []load.Sample, seconds float64) []float64 {
		us := load.Count(samples, func(x load.Sample) bool { return answered(x) && x.Cluster == "us-west" })
		eu := load.Count(samples, func(x load.Sample) bool { return answered(x) && x.Cluster == "eu-west" })
		return []float64{float64(us) / seconds, float64(eu) / seconds}
	}
	spread, err := s.awaitSpread(ctx, "us")
	s.set("overflow_replicas", float64(spread))
	if err != nil {
		return err
	}
	for _, rate := range []float64{10, 30, 60} {
		settle, judged := 8*time.Second, 12*time.Second
		if rate == 30 {
			settle, judged = 10*time.Second, 20*time.Second // for overflow_seconds, too
		}
		recorder := load.Start(ctx, s.Client("us", "checkout.example.com", rate))
		sleep(ctx, settle+judged)
		samples := recorder.Stop()
		s.explainFailures(samples)
		if len(samples) == 0 {
			return fmt.Errorf("nothing was sent at %v requests per second", rate)
		}
		begin := samples[0].At
		s.Figures[fmt.Sprintf("capacity_%v", rate)] = rates(load.Between(samples, begin.Add(settle), begin.Add(settle+judged)), judged.Seconds())
		if rate != 30 {
			continue
		}
		s.note("us-west's part of 30 rps in each second: %s", partBySecond(samples, "us-west", begin, 30))
		after, ok := load.SettledAfter(samples, begin, 10*time.Second, twentyOfThirty)
		if !ok {
			return fmt.Errorf("30 requests per second never settled at 20/10 for 10 s")
		}
		s.set("overflow_seconds", after.Seconds())
	}
	return nil
}
