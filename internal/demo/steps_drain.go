package demo

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/pkg/registration"
)

// drained is the cluster that the step drains.
const drained = "us-west"

// drainHosts are imports of all kinds, with 300 requests per second of clients in us, and us-west's part of them.
var drainHosts = []struct {
	host string
	rate float64
	part float64
	what string
}{
	{"store.example.com", 90, 0.5, "no rate, us-east beside it"},
	{"ramp.example.com", 70, 1, "no rate, alone in us"},
	{"ramp-rated.example.com", 70, 1, "a rate with room, alone in us"},
	{"ramp-spray.example.com", 70, 0.5, "Spray"},
}

// drain drains us-west over a time under load, and gives it its requests back.
func (s *Story) drain(ctx context.Context) error {
	if err := s.setUpRamp(ctx); err != nil {
		return err
	}
	recorders := make([]*load.Recorder, len(drainHosts))
	for i, h := range drainHosts {
		recorders[i] = load.Start(ctx, s.Client("us", h.host, h.rate))
	}
	sleep(ctx, 12*time.Second) // until the demand is known
	away, err := s.moveRequests(ctx, "drain", "--wait=10s")
	sleep(ctx, 5*time.Second)
	end := time.Now()
	var back v1alpha1.MemberDrain
	if err == nil {
		back, err = s.moveRequests(ctx, "undrain")
		sleep(ctx, 3*time.Second)
	}
	failed, requests, left, off := 0, 0, 0, 0.0
	for i, h := range drainHosts {
		samples := recorders[i].Stop()
		s.explainFailures(samples)
		failed, requests = failed+load.Failed(samples), requests+len(samples)
		if err != nil {
			continue
		}
		left += load.Count(load.Between(samples, away.EndTime.Add(2*time.Second), end), func(x load.Sample) bool { return x.Cluster == drained })
		for _, d := range []v1alpha1.MemberDrain{away, back} {
			worst := offLine(samples, d, h.part)
			s.note("%s (%s): at most %.1f points off the line from %d to %d %%", h.host, h.what, worst, d.From, d.Percent)
			off = max(off, worst)
		}
		s.note("us-west's part of %s in every tenth second: %s", h.host, everyTenth(partBySecond(samples, drained, away.StartTime.Time, int(end.Sub(away.StartTime.Time).Seconds()))))
	}
	if err != nil {
		return err
	}
	s.set("drain_failed", float64(failed))
	s.set("drain_requests", float64(requests))
	s.set("drain_left", float64(left))
	s.set("drain_off_line_points", off)
	return nil
}

func everyTenth(values string) string {
	var out []string
	for i, v := range strings.Fields(values) {
		if i%10 == 0 {
			out = append(out, v)
		}
	}
	return strings.Join(out, " ")
}

// setUpRamp exports three Services of the same pods from us-west and eu-west.
func (s *Story) setUpRamp(ctx context.Context) error {
	both := []string{drained, "eu-west"}
	if err := s.deploy(ctx, app{"shop", "ramp", both[0], "v1", 2, 0}, app{"shop", "ramp", both[1], "v1", 2, 0}); err != nil {
		return err
	}
	for _, name := range []string{"ramp", "ramp-rated", "ramp-spray"} {
		if err := each(both, func(cluster string) error {
			c, err := s.Lab.Cluster(cluster)
			if err != nil {
				return err
			}
			return c.Apply(ctx, render("ramp.yaml", name))
		}); err != nil {
			return err
		}
	}
	if err := s.Lab.Hub.Apply(ctx, render("ramp-hub.yaml", nil)); err != nil {
		return err
	}
	for _, h := range drainHosts {
		if err := s.AwaitAnswers(ctx, s.Client("us", h.host, 20), h.host); err != nil {
			return err
		}
	}
	return nil
}

// moveRequests runs `crossway drain` or `undrain` over the story's time, and returns spec.drain as it was meanwhile.
func (s *Story) moveRequests(ctx context.Context, command string, more ...string) (drain v1alpha1.MemberDrain, err error) {
	type result struct {
		said string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		said, err := s.Lab.Crossway(ctx, append([]string{command, drained, "--over=" + s.Times.Drain.String()}, more...)...)
		done <- result{said, err}
	}()
	for {
		select {
		case r := <-done:
			if drain.EndTime == nil && r.err == nil {
				r.err = errors.New("nobody saw spec.drain while it ran")
			}
			for line := range strings.Lines(r.said) {
				s.note("%s", strings.TrimSpace(line))
			}
			return drain, r.err
		case <-time.After(500 * time.Millisecond):
		}
		out, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "membercluster", drained, "-o", "jsonpath={.spec.drain}")
		if err == nil && out != "" {
			var seen v1alpha1.MemberDrain
			if err := json.Unmarshal([]byte(out), &seen); err == nil && seen.EndTime != nil && registration.DrainChanges(&seen, time.Now()) {
				drain = seen
			}
		}
	}
}

// offLine is how many points the part of the drained cluster is at most off the straight line, in the seconds of a drain.
func offLine(samples []load.Sample, d v1alpha1.MemberDrain, part float64) float64 {
	worst := 0.0
	for begin := d.StartTime.Time; !begin.Add(time.Second).After(d.EndTime.Time); begin = begin.Add(time.Second) {
		window := load.Between(samples, begin, begin.Add(time.Second))
		line := part * (1 - registration.Drained(&d, begin.Add(time.Second/2)))
		worst = max(worst, 100*math.Abs(load.Part(window, drained)-line))
	}
	return worst
}
