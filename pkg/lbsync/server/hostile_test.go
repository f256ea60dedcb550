package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
)

// The pool whose edge is honest, while a certificate of pool was stolen.
const otherPool = "public-eu"

var euEdge = registration.EdgeIdentity{Pool: otherPool, Region: "eu", Zone: "eu-a"}

// attack is what the thief does.
type attack struct {
	*hub
	ctx  context.Context
	sent atomic.Int64 // requests
	// pause is between two responses that are read.
	pause time.Duration
}

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

const (
	adsMethod = discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName
	lrsMethod = loadstats.LoadReportingService_StreamLoadStats_FullMethodName
)

// stream opens a stream, sends encoded requests, and reads until it ends or, at the
// latest, for a while.
func (a *attack) stream(connection *grpc.ClientConn, method string, requests ...[]byte) {
	ctx, cancel := context.WithTimeout(a.ctx, 3*time.Second)
	defer cancel()
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	s, err := connection.NewStream(ctx, desc, method, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
	if err != nil {
		return
	}
	go func() {
		for _, r := range requests {
			if s.SendMsg(r) != nil {
				return
			}
			a.sent.Add(1)
		}
	}()
	for s.RecvMsg(&discovery.DeltaDiscoveryResponse{}) == nil {
		time.Sleep(a.pause)
	}
}

func encoded(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// stars is a request for clusters that says "*" n times.
func stars(node string, n int) []byte {
	r := encoded(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: node}, TypeUrl: resourcev3.ClusterType})
	return append(r, bytes.Repeat([]byte{3<<3 | 2, 1, '*'}, n)...)
}

// invented is the first requests of an edge that holds what nobody has published.
func invented(node string, names int) (requests [][]byte) {
	held := versions{}
	for i := range names {
		held[fmt.Sprintf("invented/%s/%d", node, i)] = fmt.Sprint("version-", i)
	}
	for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.EndpointType, resourcev3.SecretType, resourcev3.ScopedRouteType} {
		requests = append(requests, encoded(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: node}, TypeUrl: typeURL, InitialResourceVersions: held}))
	}
	return requests
}

// forever runs f in n goroutines until the attack ends.
func (a *attack) forever(n int, f func(goroutine, round int)) {
	var group sync.WaitGroup
	for g := range n {
		group.Go(func() {
			for round := 0; a.ctx.Err() == nil; round++ {
				f(g, round)
			}
		})
	}
	group.Wait()
}

var attacks = []struct {
	name string
	// prepare returns what goes on until the attack ends.
	prepare func(a *attack) func()
}{
	{"20 million wildcards in one request", func(a *attack) func() {
		connection := a.dial(a.certificate(usEdge))
		all := stars("thief", 20_000_000)
		return func() { a.forever(1, func(int, int) { a.stream(connection, adsMethod, all) }) }
	}},
	{"as many wildcards as fit", func(a *attack) func() {
		connection := a.dial(a.certificate(usEdge))
		all, few := stars("thief", 2_700_000), stars("thief", 140_000)
		return func() {
			a.forever(2, func(_, round int) { a.stream(connection, adsMethod, [][]byte{few, all}[round%2], few, few, few) })
		}
	}},
	{"10,000 streams", func(a *attack) func() {
		a.pause = 100 * time.Millisecond
		certificate := a.certificate(usEdge)
		connections := make([]*grpc.ClientConn, 100)
		for i := range connections {
			connections[i] = a.dial(certificate)
		}
		return func() {
			a.forever(1000, func(g, round int) {
				node := fmt.Sprint("thief-", g, "-", round)
				a.stream(connections[g%len(connections)], adsMethod, encoded(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: node}, TypeUrl: resourcev3.ClusterType}))
			})
		}
	}},
	{"reconnects with invented versions", func(a *attack) func() {
		certificate := a.certificate(usEdge)
		requests := make([][][]byte, 8)
		for g := range requests {
			requests[g] = invented(fmt.Sprint("thief-", g), 40_000)
		}
		return func() {
			a.forever(len(requests), func(g, _ int) {
				connection := a.dial(certificate)
				defer connection.Close()
				a.stream(connection, adsMethod, requests[g]...)
			})
		}
	}},
	{"subscriptions, answers and errors without end", func(a *attack) func() {
		connection := a.dial(a.certificate(usEdge))
		var requests [][]byte
		first := true
		for i := range 500 {
			r := &discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{"*"}}
			for n := range 100 {
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, fmt.Sprint("shop/a", n))
			}
			un := proto.CloneOf(r)
			un.ResourceNamesSubscribe, un.ResourceNamesUnsubscribe = nil, r.ResourceNamesSubscribe
			wrong := &discovery.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: fmt.Sprint(i),
				ErrorDetail: &rpcstatus.Status{Message: string(bytes.Repeat([]byte("no "), 100_000))}}
			if first {
				r.Node, first = &core.Node{Id: "thief"}, false
			}
			requests = append(requests, encoded(r), encoded(un), encoded(wrong))
		}
		return func() { a.forever(2, func(int, int) { a.stream(connection, adsMethod, requests...) }) }
	}},
	{"load reports of millions of clusters", func(a *attack) func() {
		connection := a.dial(a.certificate(usEdge))
		node := encoded(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "thief"}})
		empty := append(slices.Clone(node), bytes.Repeat([]byte{2<<3 | 2, 0}, 4_000_000)...)
		many := &loadstats.LoadStatsRequest{Node: &core.Node{Id: "thief"}}
		for i := range 50_000 {
			many.ClusterStats = append(many.ClusterStats, &endpoint.ClusterStats{ClusterName: fmt.Sprint("invented-", i),
				UpstreamLocalityStats: []*endpoint.UpstreamLocalityStats{{TotalIssuedRequests: 1 << 63, Locality: &core.Locality{SubZone: "a/b/c"}}}})
		}
		reports := slices.Repeat([][]byte{encoded(many)}, 50)
		return func() {
			a.forever(2, func(_, round int) {
				a.stream(connection, lrsMethod, node, empty)
				a.stream(connection, lrsMethod, reports...)
			})
		}
	}},
}

// Whatever a stolen certificate of one pool is used for, changes of the other pools
// arrive about as quickly as before, the hub's memory is bounded, and afterwards the
// attacked pool works as well.
func TestAttackedPoolHarmsNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: run without -short")
	}
	for _, one := range attacks {
		t.Run(one.name, func(t *testing.T) {
			v := newVictim(t)
			thief := startThief(t, v.hub, one.name)
			quiet := v.latency(t, 300)
			before, peak := heap(), uint64(0)
			thief.say("begin")
			thief.hear("1")
			var attacked []time.Duration
			for end := time.Now().Add(attackTime); time.Now().Before(end); {
				attacked = append(attacked, v.latency(t, 10)...)
				peak = max(peak, heap())
			}
			thief.say("end")
			t.Logf("%s requests; latency %s, attacked %s (median), %s, attacked %s (90 %%) of %d; heap %d MB, at most %d MB", thief.hear(""),
				at(quiet, 50), at(attacked, 50), at(quiet, 90), at(attacked, 90), len(attacked), before>>20, peak>>20)
			if limit := 20*at(quiet, 50) + 20*time.Millisecond; at(attacked, 50) > limit {
				t.Errorf("half of the changes took %s or more, without the attack %s", at(attacked, 50), at(quiet, 50))
			}
			if limit := 20*at(quiet, 90) + 100*time.Millisecond; at(attacked, 90) > limit { // the thief uses this machine, too
				t.Errorf("1 of 10 changes took %s or more, without the attack %s", at(attacked, 90), at(quiet, 90))
			}
			if peak > before+300<<20 {
				t.Errorf("the heap grew from %d MB to %d MB", before>>20, peak>>20)
			}
			v.attackedPoolWorks(t)
		})
	}
}

// attackTime is how long each attack lasts.
const attackTime = 4 * time.Second

// thief is a process of its own, so that what it needs to send is not counted as the
// hub's.
type thief struct {
	t      *testing.T
	input  io.Writer
	output *bufio.Scanner
}

// startThief starts a process that prepares an attack.
func startThief(t *testing.T, h *hub, name string) thief {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestThief$")
	command.Env = append(os.Environ(), "ATTACK="+name, "HUB="+h.address, "CA="+string(h.ca.Certificate), "KEY="+string(h.ca.Key))
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	check(t, err)
	output, err := command.StdoutPipe()
	check(t, err)
	check(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	started := thief{t, input, bufio.NewScanner(output)}
	started.hear("prepared")
	return started
}

func (c thief) say(line string) { fmt.Fprintln(c.input, line) }

// hear returns the next line, which must be want, if that is not empty.
func (c thief) hear(want string) string {
	c.t.Helper()
	if !c.output.Scan() || want != "" && c.output.Text() != want {
		c.t.Fatalf("the thief said %q, want %q (%v)", c.output.Text(), want, c.output.Err())
	}
	return c.output.Text()
}

// TestThief is the thief's process.
func TestThief(t *testing.T) {
	name := os.Getenv("ATTACK")
	if name == "" {
		t.Skip("started by TestAttackedPoolHarmsNoOther")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := &attack{hub: &hub{t: t, address: os.Getenv("HUB"), ca: registration.Pair{Certificate: []byte(os.Getenv("CA")), Key: []byte(os.Getenv("KEY"))}}, ctx: ctx}
	for _, one := range attacks {
		if one.name != name {
			continue
		}
		goOn := one.prepare(a)
		fmt.Println("prepared")
		input := bufio.NewScanner(os.Stdin)
		input.Scan()
		go goOn()
		for a.sent.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		fmt.Println(1) // request at least was sent
		input.Scan()
		cancel()
		fmt.Println(a.sent.Load())
	}
}

// victim is a hub with two pools, and an honest edge of the other pool.
type victim struct {
	*hub
	acked chan struct{}
	round int
}

func newVictim(t *testing.T) *victim {
	v := &victim{hub: newHub(t, server.Config{}), acked: make(chan struct{}, 1024)}
	v.forgetful = true
	v.mu.Lock()
	v.regions[otherPool] = "eu"
	v.mu.Unlock()
	all := many(1000)
	for _, p := range []string{pool, otherPool} {
		v.UpdateLoadAssignments(p, all, nil)
		v.SetResources(p, server.Snapshot{Generation: 1, Clusters: all, Routes: all})
	}
	v.onAcked = func(typeName, name string) {
		if typeName == "ClusterLoadAssignment" && name == "shop/a7" {
			select {
			case v.acked <- struct{}{}:
			default:
			}
		}
	}
	e := open(t, v.dial(v.certificate(euEdge)), "honest")
	e.asks(resourcev3.EndpointType, nil, "shop/a7")
	e.takes("ClusterLoadAssignment shop/a7@0")
	<-v.acked
	go func() {
		for {
			r, err := e.stream.Recv()
			if err != nil {
				return
			}
			_ = e.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
		}
	}()
	return v
}

// latency is how long changes take to the honest edge's ACK. As the endpoints loop
// does, each is published to the attacked pool first.
func (v *victim) latency(t *testing.T, changes int) (took []time.Duration) {
	t.Helper()
	for range changes {
		v.round++
		changed := many(8)[7:]
		changed[0].Version = fmt.Sprint("round ", v.round)
		begin := time.Now()
		v.UpdateLoadAssignments(pool, changed, nil)
		v.UpdateLoadAssignments(otherPool, changed, nil)
		v.Edges(pool)
		select {
		case <-v.acked:
		case <-time.After(timeout):
			t.Fatalf("a change has not arrived after %s", timeout)
		}
		took = append(took, time.Since(begin))
	}
	return took
}

// attackedPoolWorks lets an edge of the attacked pool connect as an Envoy does: it
// tries again until it is let in.
func (v *victim) attackedPoolWorks(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(3 * timeout); ; time.Sleep(100 * time.Millisecond) {
		e := open(t, v.dial(v.certificate(usEdge)), "honest")
		e.asks(resourcev3.EndpointType, nil, "shop/a7")
		r, err := e.stream.Recv()
		if err == nil {
			if want := fmt.Sprintf("ClusterLoadAssignment shop/a7@round %d", v.round); describe(r) != want {
				t.Errorf("got %q, want %q", describe(r), want)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("an honest edge of the attacked pool is not let in: %v", err)
		}
	}
}

func at(took []time.Duration, percent int) time.Duration {
	return slices.Sorted(slices.Values(took))[len(took)*percent/100]
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
