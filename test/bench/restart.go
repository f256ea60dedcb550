package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab"
)

// hubPod is the pod of the hub.
func (b *Bench) hubPod(ctx context.Context) (*corev1.Pod, error) {
	var pods corev1.PodList
	if err := b.hub.List(ctx, &pods, client.InNamespace(lab.System), client.MatchingLabels{"app.kubernetes.io/name": "crossway-hub"}); err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d pods of the hub, want one", len(pods.Items))
	}
	return &pods.Items[0], nil
}

// killHub kills the hub's process and prevents its restart for a time.
func (b *Bench) killHub(ctx context.Context, down time.Duration) error {
	pod, err := b.hubPod(ctx)
	if err != nil {
		return err
	}
	return b.fleet.Hub.KillPod(lab.System, pod.Name, down)
}

// warm measures a restart of the hub during which one slice and one route change:
// the time from the start of the new process until all edges have ACKed both.
func (b *Bench) warm(ctx context.Context, _ int, f Figures) error {
	old, _ := findHub()
	mark := b.log.Mark()
	if err := b.killHub(ctx, 4*time.Second); err != nil {
		return err
	}
	b.turn++
	sliced, routed := b.services[0], b.services[len(b.services)-1]
	m := hubOnly[0]
	changed := sliced.hubSlice(m.name, m.cidr[:6], 0)
	changed.Endpoints = changed.Endpoints[1:] // a shape that it never had
	if err := b.hub.Update(ctx, changed); err != nil {
		return err
	}
	if err := b.writeRoute(ctx, routed, b.turn); err != nil {
		return err
	}
	hub, err := awaitHub(ctx, old)
	if err != nil {
		return err
	}
	slice := &Passage{Edges: len(b.edges), Type: "assignment", Names: assignmentOf(sliced), Began: hub.began}
	route := &Passage{Edges: len(b.edges), Type: "route", Names: routesOf(routed), Began: hub.began}
	if err := b.log.Follow(ctx, mark, func(e Event) bool {
		sliceThere, routeThere := slice.See(e), route.See(e)
		return sliceThere && routeThere
	}); err != nil {
		return fmt.Errorf("%s; %s: %w", slice, route, err)
	}
	f["warm_ms"], f["warm_cpu_s"] = Value(millis(max(slice.ToAck(), route.ToAck()))), Value(hub.cpu().Seconds())
	if err := pause(ctx, 10*time.Second); err != nil { // longer than any edge's silence is waited for
		return err
	}
	f["warm_rss_mb"] = Value(hub.peak())
	f["warm_other_resources"] = Value(float64(others(b.log.Since(mark), hub.began, slice, route)))
	f["warm_connected_ms"] = Value(millis(firstConnected(b.log.Since(mark), hub.began, "").Sub(hub.began)))
	return nil
}

// others counts the resources that were sent beside the two changes.
func others(events []Event, since time.Time, expected ...*Passage) int {
	count := 0
	for _, e := range events {
		if e.What != "pushed" || e.At.Before(since) {
			continue
		}
		for name := range e.Versions {
			known := false
			for _, p := range expected {
				known = known || e.Type == p.Type && p.Names(name)
			}
			if !known {
				count++
			}
		}
	}
	return count
}

// firstConnected is when the first edge, or the one of that name, connected.
func firstConnected(events []Event, since time.Time, node string) time.Time {
	for _, e := range events {
		if e.What == "edge connected" && !e.At.Before(since) && strings.HasPrefix(e.Node, node) {
			return e.At
		}
	}
	return since
}

// cold measures a restart of one Envoy while the hub is down: the time from the
// start of the hub's new process until this edge's last ACK.
func (b *Bench) cold(ctx context.Context, size int, f Figures) error {
	old, _ := findHub()
	fresh := b.edges[0]
	mark := b.log.Mark()
	if err := b.killHub(ctx, 6*time.Second); err != nil {
		return err
	}
	if err := b.fleet.Hub.KillPod(lab.System, fresh.name, time.Second); err != nil {
		return err
	}
	hub, err := awaitHub(ctx, old)
	if err != nil {
		return err
	}
	clusters, routes := map[string]bool{}, map[string]bool{}
	var last time.Time
	all := func(e Event) bool {
		if e.What != "acked" || e.Node != fresh.name || e.At.Before(hub.began) {
			return false
		}
		last = e.At
		for name := range e.Versions {
			switch e.Type {
			case "assignment":
				clusters[routeOf(name)] = true
			case "route":
				routes[name] = true
			}
		}
		return len(clusters) == size && len(routes) > 0
	}
	if err := b.log.Follow(ctx, mark, all); err != nil {
		return fmt.Errorf("edge %s has %d of %d assignments, %d routes: %w", fresh.name, len(clusters), size, len(routes), err)
	}
	cpu := hub.cpu()
	if err := b.quiet(ctx); err != nil {
		return err
	}
	for _, e := range b.log.Since(mark) { // what came after the last assignment, too
		all(e)
	}
	f["cold_ms"], f["cold_cpu_s"], f["cold_rss_mb"] = Value(millis(last.Sub(hub.began))), Value(cpu.Seconds()), Value(hub.peak())
	f["cold_connected_ms"] = Value(millis(firstConnected(b.log.Since(mark), hub.began, fresh.name).Sub(hub.began)))
	return b.restore(ctx, size)
}

// restore undoes warm's change of the slice, so that endpoints can be counted
// again.
func (b *Bench) restore(ctx context.Context, size int) error {
	m := hubOnly[0]
	if err := b.hub.Update(ctx, b.services[0].hubSlice(m.name, m.cidr[:6], 0)); err != nil {
		return err
	}
	return b.awaitEndpoints(ctx, size*perCluster*clusters)
}
