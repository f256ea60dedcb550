package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/lab"
)

// burstNamespace has the services that are exported at once.
const burstNamespace = "burst"

const burstSize = 200

// burst measures what many changes at once cost. First it makes services, their
// ready endpoints and routes to them. Then it exports all services at once, and
// then changes all endpoints at once. In the end it deletes everything.
func (b *Bench) burst(ctx context.Context, size int, f Figures) error {
	var all []service
	for i := range burstSize {
		all = append(all, service{burstNamespace, fmt.Sprintf("b%d", i), 1000 + i})
	}
	err := each(all, func(s service) error {
		return errors.Join(create(ctx, b.member, s.memberService()...), create(ctx, b.hub, s.route(0)))
	})
	if err != nil {
		return err
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}
	if err := b.measureCost(ctx, "200 exports", f, func() error { return b.exportAll(ctx, all, f) }); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}
	acked, err := b.atOnce(ctx, all, func(s service) error { return b.member.Update(ctx, s.memberSlice(1)) })
	if err != nil {
		return fmt.Errorf("change: %w", err)
	}
	f["burst_change_to_ack_ms"] = Millis(acked)
	return b.clear(ctx, all, size)
}

// measureCost runs do, and adds the processor time that all programs used meanwhile.
func (b *Bench) measureCost(ctx context.Context, what string, f Figures, do func() error) error {
	both := []*lab.Cluster{b.fleet.Hub, b.fleet.Members[realMember]}
	before := cpuByProgram()
	var written []map[string]int
	for _, c := range both {
		w, err := writes(ctx, c)
		if err != nil {
			return err
		}
		written = append(written, w)
	}
	if err := do(); err != nil {
		return err
	}
	used, sum := cpuSince(before)
	f["burst_export_cpu_s"] = Value(sum.Seconds())
	fmt.Fprintf(b.out, "  %s: CPU seconds: %s\n", what, used)
	for i, c := range both {
		now, err := writes(ctx, c)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "  %s: writes in cluster %s: %s\n", what, c.Name, since(written[i], now))
	}
	return nil
}

// exportAll creates all exports at once and waits for their imports on the hub,
// and for the edges.
func (b *Bench) exportAll(ctx context.Context, all []service, f Figures) error {
	w, err := b.hub.Watch(ctx, &mcsv1beta1.ServiceImportList{}, client.InNamespace(burstNamespace))
	if err != nil {
		return err
	}
	defer w.Stop()
	var mu sync.Mutex
	began := map[string]time.Time{}
	imports := make(chan error, 1)
	var toImport []time.Duration
	go func() { // ends with the watch
		seen := map[string]time.Time{}
		for len(seen) < len(all) {
			e, err := next(ctx, w)
			if err != nil {
				imports <- fmt.Errorf("%d of %d imports: %w", len(seen), len(all), err)
				return
			}
			o, err := meta.Accessor(e.Object)
			if err != nil || e.Type == watch.Deleted {
				continue
			}
			if _, known := seen[o.GetName()]; !known {
				seen[o.GetName()] = time.Now()
			}
		}
		mu.Lock()
		for name, at := range seen {
			toImport = append(toImport, at.Sub(began[name]))
		}
		mu.Unlock()
		imports <- nil
	}()
	acked, err := b.atOnce(ctx, all, func(s service) error {
		mu.Lock()
		began[s.name] = time.Now()
		mu.Unlock()
		return b.member.Create(ctx, s.export())
	})
	if err := errors.Join(err, <-imports); err != nil {
		return err
	}
	f["burst_export_to_import_ms"], f["burst_export_to_ack_ms"] = Millis(toImport), Millis(acked)
	return nil
}

// atOnce writes for all services at once. It returns, for each, the time from its
// write to the last edge's ACK.
func (b *Bench) atOnce(ctx context.Context, all []service, write func(service) error) ([]time.Duration, error) {
	var mu sync.Mutex
	began := map[string]time.Time{}
	mark := b.log.Mark()
	err := each(all, func(s service) error {
		mu.Lock()
		began[s.assignment()] = time.Now()
		mu.Unlock()
		return write(s)
	})
	if err != nil {
		return nil, err
	}
	acks := map[string]map[string]bool{}
	took := map[string]time.Duration{}
	err = b.log.Follow(ctx, mark, func(e Event) bool {
		if e.What != "acked" || e.Type != "assignment" {
			return false
		}
		for name := range e.Versions {
			route := routeOf(name)
			if _, ours := began[route]; !ours {
				continue
			}
			if acks[route] == nil {
				acks[route] = map[string]bool{}
			}
			if acks[route][e.Node] = true; len(acks[route]) == len(b.edges) && took[route] == 0 {
				took[route] = e.At.Sub(began[route])
			}
		}
		return len(took) == len(all)
	})
	var out []time.Duration
	for _, d := range took {
		out = append(out, d)
	}
	if err != nil {
		return nil, fmt.Errorf("%d of %d ACKed by all edges: %w", len(took), len(all), err)
	}
	return out, nil
}

// clear deletes the burst's objects.
func (b *Bench) clear(ctx context.Context, all []service, size int) error {
	err := each(all, func(s service) error {
		errs := []error{client.IgnoreNotFound(b.hub.Delete(ctx, s.route(0))), client.IgnoreNotFound(b.member.Delete(ctx, s.export()))}
		for _, o := range s.memberService() {
			errs = append(errs, client.IgnoreNotFound(b.member.Delete(ctx, o)))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	for _, e := range b.edges {
		for {
			n, err := count(ctx, b.fleet, e, `^cluster\.burst.*\.membership_total$`)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			if err := pause(ctx, 500*time.Millisecond); err != nil {
				return fmt.Errorf("edge %s still has %d endpoints of the burst: %w", e.name, n, err)
			}
		}
	}
	return b.awaitEndpoints(ctx, size*perCluster*clusters)
}
