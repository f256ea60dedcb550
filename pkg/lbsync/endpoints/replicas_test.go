package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
	"crossway.dev/crossway/pkg/replica"
)

const simTick = 100 * time.Millisecond

// hubs are the replicas of one hub, and the edges that are connected to them. Clients send a constant demand.
type hubs struct {
	t        testing.TB
	now      time.Duration
	clock    *clocktesting.FakeClock
	network  *linktest.Network
	replicas map[string]*hubReplica
	edges    []*simEdge
	started  int
	dead     fleet.ClusterName // to which no connection can be made
	grown    []string          // the endpoints of eu-west that a new replica finds; none: two
	// sent lists the load assignments that an edge got, other than when it began.
	sent []string
}

type hubReplica struct {
	*fixture
	link    *linktest.Link
	topics  []*lateTopic
	stuckTo time.Duration
	leaving bool
}

// lateTopic has each value come late. Of those that wait, the last one of a key is what comes.
type lateTopic struct {
	replica.Topic
	hubs    *hubs
	delay   time.Duration
	waiting map[string]lateValue
}

type lateValue struct {
	due   time.Duration
	value []byte
}

func (l *lateTopic) Set(key string, value []byte) {
	if l.delay == 0 {
		l.Topic.Set(key, value)
		return
	}
	due := l.hubs.now + l.delay
	if waits, ok := l.waiting[key]; ok {
		due = waits.due
	}
	l.waiting[key] = lateValue{due, value}
}

func (l *lateTopic) Delete(key string) {
	delete(l.waiting, key)
	l.Topic.Delete(key)
}

func (l *lateTopic) flush() {
	for _, key := range slices.Sorted(maps.Keys(l.waiting)) {
		if v := l.waiting[key]; l.hubs.now >= v.due {
			delete(l.waiting, key)
			l.Topic.Set(key, v.value)
		}
	}
}

// simEdge is one Envoy: it sends its clients' requests as the load assignments say that it has, and reports once a second.
type simEdge struct {
	Edge
	rate     float64 // of its clients, requests per second
	hub      string  // that it is connected to
	comesAt  time.Duration
	reports  time.Duration // from when on it reports
	phase    time.Duration
	versions map[string]string
	owed     map[fleet.ClusterName]float64
	counts   map[string]uint64
	failed   uint64        // connections to the dead cluster
	since    time.Duration // of the counts
}

func newHubs(t testing.TB, names []string, edges []*simEdge) *hubs {
	h := &hubs{t: t, clock: clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), network: linktest.NewNetwork(), replicas: map[string]*hubReplica{}, edges: edges}
	for _, name := range names {
		h.start(name, 0)
	}
	for _, e := range edges {
		e.owed, e.counts = map[fleet.ClusterName]float64{}, map[string]uint64{}
	}
	return h
}

// start starts a replica.
func (h *hubs) start(name string, delay time.Duration) {
	r := &hubReplica{link: h.network.Link(name)}
	for _, topic := range []string{"load", "shares"} {
		r.topics = append(r.topics, &lateTopic{Topic: r.link.Topic(topic), hubs: h, delay: delay, waiting: map[string]lateValue{}})
	}
	r.fixture = newReplica(h.t, h.clock, Config{Load: r.topics[0], Shares: r.topics[1], PeersHeard: r.link.Settled(), Hub: Hub{Replica: name}})
	r.import2("web", 1)
	if len(h.grown) > 0 {
		r.slice(memberSlice("eu-west", "web", h.grown...))
	}
	r.link.Start()
	r.run()
	r.SetAssignments([]model.Assignment{assignmentOf("a", "web")}, []model.ImportPolicy{rated("web", 100)})
	h.replicas[name] = r
}

// kill ends a replica, as SIGKILL does. Its edges connect to others.
func (h *hubs) kill(name string, after, reports time.Duration) {
	r := h.replicas[name]
	delete(h.replicas, name)
	r.link.Stop()
	for _, e := range h.edges {
		if e.hub == name {
			h.cut(e, after, reports)
		}
	}
}

// leave ends a replica, as SIGTERM does: it tells the others, and ends its edges' streams one after the other.
func (h *hubs) leave(name string, to func(e *simEdge, names []string) string) {
	r := h.replicas[name]
	r.leaving = true
	r.link.Leave()
	r.Leave()
	for _, e := range h.edges {
		if e.hub == name {
			h.cut(e, 300*time.Millisecond, 2*time.Second)
			h.run(time.Second, to)
		}
	}
	h.kill(name, 0, 0)
}

// staying are the replicas that edges may connect to.
func (h *hubs) staying() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.replicas)), func(name string) bool { return h.replicas[name].leaving })
}

// cut ends the streams of an edge, which connects again after a time, and reports a time after that.
func (h *hubs) cut(e *simEdge, after, reports time.Duration) {
	if r := h.replicas[e.hub]; r != nil {
		r.Disconnected(e.Edge)
	}
	e.hub, e.comesAt, e.reports = "", h.now+after, h.now+after+reports
}

// run lets time pass. to says which replica an edge connects to.
func (h *hubs) run(length time.Duration, to func(e *simEdge, names []string) string) {
	for end := h.now + length; h.now < end; {
		h.now += simTick
		h.clock.Step(simTick)
		for _, e := range h.edges {
			h.step(e, to)
		}
		for _, name := range slices.Sorted(maps.Keys(h.replicas)) {
			r := h.replicas[name]
			for _, topic := range r.topics {
				topic.flush()
			}
			if h.now >= r.stuckTo {
				r.run()
			}
		}
		for _, e := range h.edges {
			h.take(e, "")
		}
	}
}

func (h *hubs) step(e *simEdge, to func(e *simEdge, names []string) string) {
	if e.hub == "" && h.now >= e.comesAt {
		e.hub = to(e, h.staying())
		r := h.replicas[e.hub]
		r.Connected(e.Edge)
		r.InitialVersions(e.Edge, e.versions)
		h.take(e, "on connecting ")
	}
	var shares []traffic.BackendShares
	if version, has := e.versions["a"]; has {
		_, shares, _ = traffic.ParseVersion(version)
	}
	if len(shares) == 0 || len(shares[0].Shares) == 0 {
		e.since = h.now
		return
	}
	for _, s := range shares[0].Shares {
		e.owed[s.Cluster] += e.rate * simTick.Seconds() * float64(s.Parts) / traffic.TotalParts
		for ; e.owed[s.Cluster] >= 1; e.owed[s.Cluster]-- {
			if s.Cluster != h.dead {
				e.counts[string(s.Cluster)]++
				continue
			}
			e.failed++ // and sent to another cluster
			e.counts[map[bool]string{true: "eu-west", false: "us-west"}[h.dead == "us-west"]]++
		}
	}
	if e.hub == "" || h.now < e.reports || (h.now-e.phase)%time.Second != 0 {
		return
	}
	load := Load{Assignment: "a", Interval: h.now - e.since}
	for _, cluster := range slices.Sorted(maps.Keys(e.counts)) {
		load.Localities = append(load.Localities, LocalityLoad{SubZone: cluster + "/shop/web", Issued: e.counts[cluster], Succeeded: e.counts[cluster]})
	}
	if e.failed > 0 {
		load.Localities = append(load.Localities, LocalityLoad{SubZone: string(h.dead) + "/shop/web", Failed: e.failed})
	}
	h.replicas[e.hub].ObserveLoad(e.Edge, []Load{load})
	e.counts, e.failed, e.since = map[string]uint64{}, 0, h.now
}

// take gives an edge what its replica has published.
func (h *hubs) take(e *simEdge, when string) {
	if e.hub == "" {
		return
	}
	versions := h.replicas[e.hub].edges.versions(e.Pool)
	if version := versions["a"]; e.versions != nil && version != e.versions["a"] {
		_, shares, _ := strings.Cut(version, "=")
		_, before, _ := strings.Cut(e.versions["a"], "=")
		h.sent = append(h.sent, fmt.Sprintf("%v %s%s by %s: %s, not %s", h.now, when, e.Node, e.hub, shares, before))
	}
	if versions["a"] != "" {
		e.versions = versions
	}
}

// parts are what edges hold, by edge and cluster.
func (h *hubs) parts() map[string]map[fleet.ClusterName]uint32 {
	out := map[string]map[fleet.ClusterName]uint32{}
	for _, e := range h.edges {
		out[e.Node] = map[fleet.ClusterName]uint32{}
		if _, shares, ok := traffic.ParseVersion(e.versions["a"]); ok && len(shares) > 0 {
			for _, s := range shares[0].Shares {
				out[e.Node][s.Cluster] = s.Parts
			}
		}
	}
	return out
}

// decider is whom the first replica follows.
func (h *hubs) decider() string {
	for _, name := range slices.Sorted(maps.Keys(h.replicas)) {
		return h.replicas[name].state.Decider()
	}
	return ""
}

// agree says whether all replicas follow the same one and have the same in force.
func (h *hubs) agree() bool {
	said := map[string]bool{}
	for _, r := range h.replicas {
		said[r.state.Decider()+r.edges.pools["us"]["a"].Version+r.edges.pools["eu"]["a"].Version] = true
	}
	return len(said) == 1
}

// deciders is whom each replica follows.
func (h *hubs) deciders() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(h.replicas)) {
		out = append(out, name+">"+h.replicas[name].state.Decider())
	}
	return strings.Join(out, " ")
}
