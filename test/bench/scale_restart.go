package bench

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
)

// returnTime is how long edges and readers may take to come back to a replica, and a replica to write its snapshot.
const returnTime = 10 * time.Second

// restartCold measures the start of a replica that was killed, until it is ready for edges.
func (s *Scale) restartCold(ctx context.Context) error {
	began := time.Now()
	if err := s.hub.List(ctx, &discoveryv1.EndpointSliceList{}); err != nil { // what no start can do without
		return err
	}
	if err := s.hub.List(ctx, &v1alpha1.MemberExportList{}); err != nil {
		return err
	}
	s.figures["scale_start_bare_ms"] = Value(millis(time.Since(began)))
	return s.restart(ctx, "scale_start_")
}

// restartFrozen measures the same while the API server takes connections and answers nothing.
func (s *Scale) restartFrozen(ctx context.Context) error {
	if err := pause(ctx, returnTime); err != nil { // for its snapshot
		return err
	}
	s.fleet.Hub.FreezeAPIServer()
	defer s.fleet.Hub.ThawAPIServer()
	return s.restart(ctx, "scale_frozen_")
}

func (s *Scale) restart(ctx context.Context, figure string) error {
	pod := s.pods[0]
	old, ok := hubIn(pod)
	if !ok {
		return fmt.Errorf("no hub runs in pod %s", pod)
	}
	if err := s.fleet.Hub.KillPod(lab.System, pod, 2*time.Second); err != nil {
		return err
	}
	p, ok := process{}, false
	for !ok || p.pid == old.pid {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the hub's process: %w", err)
		}
		p, ok = hubIn(pod)
	}
	if s.profiles != "" {
		go func() {
			for s.fetch(ctx, pod, "profile?seconds=8", figure+"cpu") != nil && pause(ctx, 50*time.Millisecond) == nil {
			}
		}()
	}
	before := cpuByProgram()
	asking := s.clientIn(pod)
	for !ready(ctx, asking) {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the replica is not ready: %w", err)
		}
	}
	took := time.Since(p.began)
	used, sum := cpuSince(before)
	s.figures[figure+"ms"], s.figures[figure+"cpu_s"] = Value(millis(took)), Value(p.cpu().Seconds())
	s.figures[figure+"all_cpu_s"] = Value(sum.Seconds())
	fmt.Fprintf(s.out, "  ready after %s; CPU seconds until then: this replica %.1f; all programs %.1f on %d processors: %s\n",
		took.Round(10*time.Millisecond), p.cpu().Seconds(), sum.Seconds(), runtime.NumCPU(), used)
	if err := pause(ctx, returnTime); err != nil { // edges and readers come back
		return err
	}
	s.figures[figure+"peak_mb"] = Value(p.peak())
	return nil
}

func ready(ctx context.Context, c *http.Client) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8081/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := c.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}
