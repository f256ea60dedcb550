package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// singles is the number of changes of one kind. They are spread evenly over all services.
const singles = 200

// gap is the pause after each change. It is longer than any batch delay, and no
// divisor of 1 s, the interval of load reports.
const gap = 83 * time.Millisecond

// change is a kind of single change.
type change struct {
	kind  string // of the resources that it changes
	write func(ctx context.Context, s service, turn int) error
	names func(s service) func(name string) bool
}

// samples of one kind of change.
type samples struct{ toPush, toAck, pushToAck []time.Duration }

// run makes single changes one after the other, and waits for the ACKs of all edges after each.
func (b *Bench) run(ctx context.Context, c change) (samples, error) {
	var out samples
	for i := range singles {
		s := b.services[i*len(b.services)/singles%len(b.services)]
		if len(b.services) < singles {
			s = b.services[i%len(b.services)]
		}
		b.turn++
		mark := b.log.Mark()
		p := &Passage{Edges: len(b.edges), Type: c.kind, Names: c.names(s), Began: time.Now()}
		if err := c.write(ctx, s, b.turn); err != nil {
			return out, err
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := b.log.Follow(limited, mark, p.See)
		cancel()
		if err != nil {
			return out, fmt.Errorf("change %d, of %s: %s: %w; since then: %v", i, s.name, p, err, b.log.Since(mark))
		}
		out.toPush, out.toAck, out.pushToAck = append(out.toPush, p.ToPush()), append(out.toAck, p.ToAck()), append(out.pushToAck, p.PushToAck())
		if err := pause(ctx, gap); err != nil {
			return out, err
		}
	}
	return out, nil
}

func assignmentOf(s service) func(string) bool {
	return func(name string) bool { return strings.HasPrefix(name, s.assignment()) }
}

// routesOf matches the RouteConfiguration that a service's host is in: one of
// its own, or in small chains that of all hosts.
func routesOf(s service) func(string) bool {
	chain := namespace + "/" + gateway + "/80"
	return func(name string) bool { return name == chain || name == chain+"/"+s.host() }
}

// slices measures single changes of slices on the hub. The members without an
// agent take turns.
func (b *Bench) slices(ctx context.Context, _ int, f Figures) error {
	flips, mark := map[string]int{}, b.log.Mark()
	sum, count, err := b.histogram(ctx)
	if err != nil {
		return err
	}
	all, err := b.run(ctx, change{kind: "assignment", names: assignmentOf, write: func(ctx context.Context, s service, turn int) error {
		m := hubOnly[turn%len(hubOnly)]
		flips[s.name+m.name]++
		return b.hub.Update(ctx, s.hubSlice(m.name, m.cidr[:6], flips[s.name+m.name]))
	}})
	if err != nil {
		return err
	}
	sumAfter, countAfter, err := b.histogram(ctx)
	if err != nil {
		return err
	}
	f["slice_to_ack_ms"], f["slice_push_to_ack_ms"] = Millis(all.toAck), Millis(all.pushToAck)
	f["push_to_ack_histogram_mean_ms"] = Value((sumAfter - sum) / max(countAfter-count, 1) * 1000)
	f["push_to_ack_log_mean_ms"] = Value(millis(MeanPushToAck(b.log.Since(mark), "assignment")))
	bare, err := b.bareSlices(ctx)
	f["slice_bare_ms"] = Millis(bare)
	return err
}

func (b *Bench) routes(ctx context.Context, _ int, f Figures) error {
	all, err := b.run(ctx, change{kind: "route", names: routesOf, write: b.writeRoute})
	if err != nil {
		return err
	}
	f["route_to_push_ms"], f["route_to_ack_ms"], f["route_push_to_ack_ms"] = Millis(all.toPush), Millis(all.toAck), Millis(all.pushToAck)
	bare, err := b.bareRoutes(ctx)
	f["route_bare_ms"] = Millis(bare)
	return err
}

// writeRoute patches a route: an update would need the newest resourceVersion.
func (b *Bench) writeRoute(ctx context.Context, s service, turn int) error {
	return b.hub.Patch(ctx, s.route(0), headerPatch(turn))
}

func headerPatch(turn int) client.Patch {
	return client.RawPatch("application/json-patch+json", fmt.Appendf(nil,
		`[{"op":"replace","path":"/spec/rules/0/filters/0/requestHeaderModifier/set/0/value","value":"%d"}]`, turn))
}

func (b *Bench) members(ctx context.Context, _ int, f Figures) error {
	flips := map[string]int{}
	all, err := b.run(ctx, change{kind: "assignment", names: assignmentOf, write: func(ctx context.Context, s service, _ int) error {
		flips[s.name]++
		return b.member.Update(ctx, s.memberSlice(flips[s.name]))
	}})
	if err != nil {
		return err
	}
	f["member_to_ack_ms"] = Millis(all.toAck)
	bare, err := b.bareRelay(ctx)
	f["member_bare_ms"] = Millis(bare)
	return err
}

// atRest measures the hub's peak so far, and what hub and Envoys use while nothing changes and no request comes.
func (b *Bench) atRest(ctx context.Context, _ int, f Figures) error {
	hub, _ := findHub()
	before, programs, began := hub.cpu(), cpuByProgram(), time.Now()
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	took, now := float64(time.Since(began)), cpuByProgram()
	f["cpu_idle_percent"] = Value(100 * float64(hub.cpu()-before) / took)
	f["edge_cpu_idle_percent"] = Value(100 * float64(now["envoy"]-programs["envoy"]) / took / float64(len(b.edges)))
	f["rss_peak_mb"] = Value(hub.peak())
	return nil
}
