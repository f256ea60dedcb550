package bench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
)

// restartCold measures the start of a replica that was killed, until it is ready for edges. kind begins the names of the
// figures.
func (s *Scale) restartCold(ctx context.Context, kind string) error {
	began := time.Now()
	if err := s.hub.List(ctx, &discoveryv1.EndpointSliceList{}); err != nil { // what no start can do without
		return err
	}
	if err := s.hub.List(ctx, &v1alpha1.MemberExportList{}); err != nil {
		return err
	}
	s.figures["scale_"+kind+"start_bare_ms"] = Value(millis(time.Since(began)))
	return s.restart(ctx, "scale_"+kind+"start_")
}

// restartFrozen measures the same while the API server takes connections and answers nothing.
func (s *Scale) restartFrozen(ctx context.Context) error {
	if err := pause(ctx, 15*time.Second); err != nil { // for its snapshot
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
	asking := s.clientIn(pod)
	for !ready(ctx, asking) {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the replica is not ready: %w", err)
		}
	}
	s.figures[figure+"ms"] = Value(millis(time.Since(p.began)))
	s.figures[figure+"cpu_s"] = Value(p.cpu().Seconds())
	if err := pause(ctx, 15*time.Second); err != nil { // edges and readers come back
		return err
	}
	s.figures[figure+"rss_mb"] = Value(p.peak())
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
