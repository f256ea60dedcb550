package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"crossway.dev/crossway/internal/testkit/gossipkit"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// Options are what is measured.
type Options struct {
	Program string // the bench's own, for agents in processes of their own
	Members int    // of the large fleet
	Deaths  int    // how many agents die one after the other, in each fleet
}

// Row is one figure.
type Row struct {
	Name string `json:"name"`
	// Value and Worst are a median and a maximum, or the same figure twice.
	Value float64 `json:"value"`
	Worst float64 `json:"worst"`
	Tell  string  `json:"tell"`
}

// restTime is how long bytes are counted, busyTime how long an agent is busy, and
// splitTime how long halves are alone: memberlist has forgotten the others by then, and
// would stay alone for ever.
const restTime, busyTime, splitTime = 60 * time.Second, 60 * time.Second, 60 * time.Second

// Measure returns the figures of a small fleet and of a large one.
func Measure(ctx context.Context, o Options, out io.Writer) ([]Row, error) {
	rows, err := small(ctx, o, out)
	if err != nil {
		return rows, err
	}
	more, err := large(ctx, o, out)
	return append(rows, more...), err
}

// small is a fleet of two replicas and three agents in processes of their own.
func small(ctx context.Context, o Options, out io.Writer) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fleet, hubs, err := startHubs(ctx)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, h := range hubs {
		addresses = append(addresses, h.Address)
	}
	agents := map[string]*agent{}
	defer func() {
		for _, a := range agents {
			a.kill()
		}
	}()
	launch := func(name string, burn int) error {
		a, err := startAgent(ctx, o.Program, fleet, spec{Name: membership.Name(name), Address: fleet.Address(), Hubs: addresses, Burn: burn})
		agents[name] = a
		return err
	}
	names := []string{"member:a", "member:b", "member:c"}
	for _, name := range names {
		if err := launch(name, 0); err != nil {
			return nil, err
		}
	}
	var deaths []time.Duration
	for i := range o.Deaths {
		if err := errors.Join(awaitWhole(ctx, hubs, 5), explored(ctx, 5)); err != nil {
			return nil, err
		}
		name := names[i%len(names)]
		d, v, err := lossOf(ctx, hubs[0], membership.Name(name), agents[name].kill)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(out, "3 members: %s killed, lost after %s by the word of %v\n", name, d.Round(time.Millisecond), v.Unreached)
		deaths = append(deaths, d)
		if err := launch(name, 0); err != nil {
			return nil, err
		}
	}
	if err := awaitWhole(ctx, hubs, 5); err != nil {
		return nil, err
	}
	agents["member:c"].kill()
	if err := launch("member:c", 4*runtime.NumCPU()); err != nil {
		return nil, err
	}
	doubted, lost, err := busy(ctx, hubs[0], "member:c")
	fmt.Fprintf(out, "3 members: member:c computes for %s: not alive for %s, lost %d times\n", busyTime, doubted, lost)
	return []Row{
		row("loss_3_ms", "3 members: SIGKILL of an agent -> lost, by a second opinion", deaths),
		{Name: "busy_not_alive_ms", Value: millis(doubted), Worst: millis(doubted), Tell: "an agent under 100 % CPU for 60 s: time in which it was not alive"},
		{Name: "busy_lost", Value: float64(lost), Worst: float64(lost), Tell: "  times that it was lost"},
	}, err
}

// startHubs starts two replicas.
func startHubs(ctx context.Context) (*gossipkit.Fleet, []*gossipkit.Node, error) {
	fleet, err := gossipkit.New(ctx, logr.Discard())
	if err != nil {
		return nil, nil, err
	}
	var hubs []*gossipkit.Node
	for _, pod := range []string{"h1", "h2"} {
		h, err := fleet.Start(membership.Replica(pod), inBench)
		if err != nil {
			return nil, nil, err
		}
		hubs = append(hubs, h)
	}
	return fleet, hubs, nil
}

func inBench(c *gossip.Config) { c.Fleet = "bench" }

// lossOf kills an agent and waits until a replica says that it is lost.
func lossOf(ctx context.Context, hub *gossipkit.Node, name membership.Name, kill func()) (time.Duration, membership.Verdict, error) {
	began := time.Now()
	kill()
	err := await(ctx, fmt.Sprintf("%s is lost", name), func() bool {
		v := hub.Verdict(name)
		return v.State == membership.Lost && slices.ContainsFunc(v.Unreached, func(n membership.Name) bool { return !n.IsHub() })
	})
	return time.Since(began), hub.Verdict(name), err
}

// busy watches an agent, and says how long it was not alive and how often it was lost.
func busy(ctx context.Context, hub *gossipkit.Node, name membership.Name) (doubted time.Duration, lost int, err error) {
	if err := await(ctx, fmt.Sprintf("%s is alive", name), func() bool { return hub.Verdict(name).State == membership.Alive }); err != nil {
		return 0, 0, err
	}
	last := membership.Alive
	before := time.Now()
	for end := before.Add(busyTime); before.Before(end); {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return doubted, lost, err
		}
		now, state := time.Now(), hub.Verdict(name).State
		if state != membership.Alive {
			doubted += now.Sub(before)
		}
		if state == membership.Lost && last != membership.Lost {
			lost++
		}
		before, last = now, state
	}
	return doubted, lost, nil
}

// large is a fleet of two replicas and many agents in this process.
func large(ctx context.Context, o Options, out io.Writer) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fleet, hubs, err := startHubs(ctx)
	if err != nil {
		return nil, err
	}
	nodes := slices.Clone(hubs)
	side := map[membership.Name]bool{hubs[0].Name: true}
	for i := range o.Members {
		n, err := fleet.Start(membership.Name(fmt.Sprintf("member:m%d", i)), inBench)
		if err != nil {
			return nil, err
		}
		side[n.Name] = i%2 == 0
		nodes = append(nodes, n)
	}
	began := time.Now()
	if err := awaitWhole(ctx, nodes, len(nodes)); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "%d members: whole after %s\n", o.Members, time.Since(began).Round(time.Second))
	rows, err := rest(ctx, o, nodes, out)
	if err != nil {
		return rows, err
	}
	var deaths []time.Duration
	for i := range o.Deaths {
		victim := nodes[2+i]
		d, v, err := lossOf(ctx, hubs[0], victim.Name, victim.Kill)
		if err != nil {
			return rows, err
		}
		fmt.Fprintf(out, "%d members: %s killed, lost after %s by the word of %v\n", o.Members, victim.Name, d.Round(time.Millisecond), v.Unreached)
		deaths = append(deaths, d)
	}
	rows = append(rows, row(fmt.Sprintf("loss_%d_ms", o.Members), fmt.Sprintf("%d members: an agent dies -> lost, by a second opinion", o.Members), deaths))
	nodes = append(slices.Clone(hubs), nodes[2+o.Deaths:]...)
	healed, err := split(ctx, fleet, nodes, side, out)
	return append(rows, Row{Name: "heal_ms", Value: millis(healed), Worst: millis(healed), Tell: "a healed split of two halves -> whole again"}), err
}

// rest counts the bytes of each node while nothing happens.
func rest(ctx context.Context, o Options, nodes []*gossipkit.Node, out io.Writer) ([]Row, error) {
	if err := explored(ctx, len(nodes)); err != nil {
		return nil, err
	}
	before := bytesOf(nodes)
	if err := pause(ctx, restTime); err != nil {
		return nil, err
	}
	var agents []float64
	worst := 0.0
	for i, sum := range bytesOf(nodes) {
		rate := (sum - before[i]) / restTime.Seconds() / 1000
		if nodes[i].Name.IsHub() {
			worst = max(worst, rate)
		} else {
			agents = append(agents, rate)
		}
	}
	slices.Sort(agents)
	fmt.Fprintf(out, "%d members: at rest %.1f kB/s an agent (most %.1f), %.1f kB/s a replica of the hub, both directions together\n", o.Members, agents[len(agents)/2], agents[len(agents)-1], worst)
	return []Row{
		{Name: "rest_agent_kb_s", Value: round(agents[len(agents)/2]), Worst: round(agents[len(agents)-1]), Tell: fmt.Sprintf("%d members: kB/s of one agent at rest, sent and received", o.Members)},
		{Name: "rest_hub_kb_s", Value: round(worst), Worst: round(worst), Tell: "  of one replica of the hub"},
	}, nil
}

// explored waits until each node has tried each other one, one of them a second: before
// that it has no word about it.
func explored(ctx context.Context, size int) error {
	return pause(ctx, time.Duration(size+5)*time.Second)
}

// bytesOf are the bytes that nodes have sent and received.
func bytesOf(nodes []*gossipkit.Node) []float64 {
	sums := make([]float64, len(nodes))
	for i, n := range nodes {
		metrics := make(chan prometheus.Metric, 100)
		n.Collect(metrics)
		close(metrics)
		for m := range metrics {
			var value dto.Metric
			if strings.Contains(m.Desc().String(), "membership_bytes_total") && m.Write(&value) == nil {
				sums[i] += value.GetCounter().GetValue()
			}
		}
	}
	return sums
}

// split cuts a fleet in two halves until both are alone, heals it, and returns how long
// it takes until all nodes have all others again and both replicas hear everybody.
func split(ctx context.Context, fleet *gossipkit.Fleet, nodes []*gossipkit.Node, side map[membership.Name]bool, out io.Writer) (time.Duration, error) {
	began := time.Now()
	fleet.Cut(func(a, b membership.Name) bool { return side[a] != side[b] })
	if err := await(ctx, "each half is alone", func() bool {
		return !slices.ContainsFunc(nodes, func(n *gossipkit.Node) bool { return n.RingSize() > len(nodes)/2+1 })
	}); err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "split: each half is alone after %s\n", time.Since(began).Round(time.Second))
	if err := pause(ctx, splitTime); err != nil {
		return 0, err
	}
	fleet.Cut(nil)
	began = time.Now()
	err := awaitWhole(ctx, nodes, len(nodes))
	healed := time.Since(began)
	fmt.Fprintf(out, "split: whole again %s after it was healed\n", healed.Round(100*time.Millisecond))
	return healed, err
}

// awaitWhole waits until each node's ring has size nodes, and replicas hear as many.
func awaitWhole(ctx context.Context, nodes []*gossipkit.Node, size int) error {
	return await(ctx, fmt.Sprintf("the ring has %d nodes", size), func() bool {
		return !slices.ContainsFunc(nodes, func(n *gossipkit.Node) bool {
			if !n.Name.IsHub() {
				return n.RingSize() != size
			}
			alive := 0
			for _, v := range n.Verdicts() {
				if v.State == membership.Alive {
					alive++
				}
			}
			return n.RingSize() != size || alive != size
		})
	})
}

// await waits at most three minutes.
func await(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for !is() {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
