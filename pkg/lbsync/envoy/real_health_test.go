package envoy_test

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// locality is one member's part of import store, answered at one address.
func locality(cluster string, weight uint32, address netip.AddrPort) lbsync.Locality {
	return lbsync.Locality{Backend: importNamed("store"), Cluster: fleet.ClusterName(cluster), Place: fleet.Place{Region: cluster},
		Weight: weight, Endpoints: []netip.AddrPort{address}}
}

// counted sends n requests one after the other and counts the answers by their first fields.
func counted(t *testing.T, port uint16, method string, n int) map[string]int {
	answers := map[string]int{}
	for range n {
		fields := strings.Fields(ask(t, port, method, "a.example", "/", ""))
		answers[strings.Join(fields[:min(2, len(fields))], " ")]++
	}
	return answers
}

// Shares are exact, a dead member costs nothing whatever the method (its connections are refused, so nothing was sent),
// a refuge takes over when all that have a share are dead, and a backend without endpoints keeps its part as 503.
func TestSharesAndFailureOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	west, east, dead := backend(t, "west"), backend(t, "east"), netip.MustParseAddrPort("127.0.0.1:1")
	port := freePort(t)
	p := lbsync.Program{
		Listeners:   []lbsync.Listener{httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})},
		Assignments: []model.Assignment{{Key: "store"}},
	}
	for _, c := range []struct {
		why        string
		localities []lbsync.Locality
		drop       uint32
		method     string
		want       map[string]int
	}{
		{"two thirds and one third, exactly", []lbsync.Locality{locality("a", 333_333, east), locality("b", 666_667, west)}, 0, "GET",
			map[string]int{"200 west": 200, "200 east": 100}},
		{"a refuge beside all of the shares gets nothing", []lbsync.Locality{locality("a", 1, east), locality("b", traffic.TotalParts, west)}, 0, "GET",
			map[string]int{"200 west": 300}},
		{"half is dead", []lbsync.Locality{locality("a", 500_000, dead), locality("b", 500_000, west)}, 0, "POST",
			map[string]int{"200 west": 300}},
		{"all that has a share is dead", []lbsync.Locality{locality("a", 1, east), locality("b", traffic.TotalParts, dead)}, 0, "GET",
			map[string]int{"200 east": 300}},
		{"no backend is left", nil, traffic.TotalParts, "GET", map[string]int{"503 unconditional": 300}},
	} {
		e.apply(p, lbsync.LoadAssignment{Key: "store", Localities: c.localities, Drop: c.drop})
		got := counted(t, port, c.method, 300)
		for answer, n := range c.want {
			if d := got[answer] - n; d < -2 || d > 2 {
				t.Errorf("%s: %v, want %v", c.why, got, c.want)
			}
		}
	}
}

// A timeout is an answer of 504 to whoever it is for, and tells nothing of the endpoint: nobody else loses it. With a
// limit on each try, what may be repeated is asked of another endpoint.
func TestTimeoutsOnARealEnvoy(t *testing.T) {
	for _, protocol := range []model.BackendProtocol{model.HTTP1, model.H2C} {
		t.Run(string(protocol), func(t *testing.T) { testTimeouts(t, protocol) })
	}
}

func testTimeouts(t *testing.T, protocol model.BackendProtocol) {
	e := startEdge(t)
	var asked atomic.Int32
	sleepy := func(always bool) netip.AddrPort {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1); r.URL.Path != "/quick" && (always || r.URL.Path == "/slow") {
				select {
				case <-time.After(3 * time.Second):
				case <-r.Context().Done():
				}
			}
			fmt.Fprint(w, "awake")
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(protocol == model.HTTP1)
		s.Config.Protocols.SetUnencryptedHTTP2(protocol == model.H2C)
		s.Start()
		t.Cleanup(s.Close)
		return netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	bad, good := sleepy(true), sleepy(false)
	a, load := serve("plain", bad)
	load.Localities[0].Endpoints = []netip.AddrPort{bad, good}
	timed, timedLoad := a, load
	timed.Key, timedLoad.Key, timed.Timeout = "timed", "timed", 400*time.Millisecond
	a.Protocol, timed.Protocol = protocol, protocol
	port := freePort(t)
	rule := func(host string, to *model.Forward, whole, each *time.Duration) model.VirtualHost {
		return model.VirtualHost{Hostname: host, Rules: []model.Rule{{Match: prefix("/"), Forward: to, Timeout: whole, BackendTimeout: each}}}
	}
	e.apply(lbsync.Program{Assignments: []model.Assignment{a, timed}, Listeners: []lbsync.Listener{httpListener(port,
		rule("whole.example", to("plain"), ptr(400*time.Millisecond), nil), rule("each.example", to("timed"), nil, ptr(400*time.Millisecond)),
		rule("both.example", to("timed"), ptr(600*time.Millisecond), ptr(400*time.Millisecond)))}}, load, timedLoad)
	for _, c := range []struct {
		method, host, path, want string
		tries                    []int32
	}{
		{"GET", "whole.example", "/slow", "504 ", []int32{1}},
		{"POST", "whole.example", "/slow", "504 ", []int32{1}},
		{"GET", "each.example", "/slow", "504 ", []int32{3}},  // everybody is slow: the first try and two more
		{"POST", "each.example", "/slow", "504 ", []int32{1}}, // may have been done
		{"GET", "both.example", "/slow", "504 ", []int32{2}},  // 600 ms in all
		{"GET", "each.example", "/", "200 awake", []int32{1, 2}},
		{"GET", "each.example", "/", "200 awake", []int32{1, 2}},
	} {
		asked.Store(0)
		got := ask(t, port, c.method, c.host, c.path, "")
		if !strings.HasPrefix(got, c.want) || !slices.Contains(c.tries, asked.Load()) {
			t.Errorf("%s %s%s: %s after %d tries, want %s after %d", c.method, c.host, c.path, got, asked.Load(), c.want, c.tries)
		}
	}
	for range 10 {
		for _, host := range []string{"whole.example", "each.example"} {
			if got := ask(t, port, "POST", host, "/quick", ""); got != "200 awake" {
				t.Errorf("after timeouts %s answers %s", host, got)
			}
		}
	}
	if stats := e.get("/stats?filter=ejections_enforced_total"); strings.Count(stats, ": 0") != 2 {
		t.Error("an endpoint was ejected for being slow:", stats)
	}
}

// A request that every endpoint hangs up on is its client's trouble alone: who asks for something else is answered, while
// an address where nobody listens is left alone after few tries.
func TestDeadlyRequestOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	var endpoints []netip.AddrPort
	for range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/die" {
				panic(http.ErrAbortHandler) // closes the connection
			}
			fmt.Fprint(w, "well")
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		endpoints = append(endpoints, netip.MustParseAddrPort(s.Listener.Addr().String()))
	}
	a, load := serve("store", endpoints[0])
	load.Localities[0].Endpoints = append(endpoints[:2:2], netip.MustParseAddrPort("127.0.0.1:1"))
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
	for range 3 {
		if got := ask(t, port, "GET", "a.example", "/die", ""); !strings.HasPrefix(got, "503") {
			t.Errorf("the deadly request: %s", got)
		}
		hosts := e.get("/clusters") // by address: an ejection of who is dead may end in this loop, and begin again
		for _, living := range endpoints {
			if !strings.Contains(hosts, fmt.Sprintf("store::%s::health_flags::healthy\n", living)) {
				t.Errorf("%s lives and is ejected: %s", living, hosts)
			}
		}
		for range 5 {
			if got := ask(t, port, "POST", "a.example", "/", ""); got != "200 well" {
				t.Errorf("after a deadly request: %s", got)
			}
		}
	}
	if stats := e.get("/stats?filter=ejections_enforced_total"); !strings.Contains(stats, "ejections_enforced_total: ") || strings.Contains(stats, ": 0\n") {
		t.Error("the address where nobody listens was not ejected:", stats)
	}
}

// One request after the other, nearly all of whose endpoints are dead: each finds one that lives before it gives up.
func TestFewRequestsFindWhoLives(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	dead := locality("a", 980_000, netip.AddrPort{})
	dead.Endpoints = nil
	for i := range 7 {
		dead.Endpoints = append(dead.Endpoints, netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1", i+1)))
	}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{{Key: "store"}}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}},
		lbsync.LoadAssignment{Key: "store", Localities: []lbsync.Locality{dead, locality("b", 20_000, backend(t, "living"))}})
	if got := counted(t, port, "POST", 20); got["200 living"] != 20 {
		t.Error(got)
	}
}

// HTTP/2 to the backend, probed over HTTP/2 too: with the wrong protocol every host would be unhealthy.
func TestHTTP2BackendOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	a, load := serve("h2", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.Protocol, a.Policy = model.H2C, &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: 200 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("h2")}}})}}, load)
	e.wait("a probe", func() bool { return strings.Contains(e.get("/clusters"), "health_flags::healthy") })
	time.Sleep(500 * time.Millisecond) // two probes
	if got := ask(t, port, "GET", "a.example", "/", ""); got != "200 HTTP/2.0" {
		t.Error(got)
	}
	if stats := e.get("/stats?filter=health_check"); !strings.Contains(stats, "failure: 0") || strings.Contains(stats, "success: 0") {
		t.Error(stats)
	}
}

// An HTTP/1.1 backend that is picky about Host, as most servers are, is healthy: Envoy's own choice of a Host is the
// cluster's name, and no server takes one with a slash.
func TestProbesOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	hosts := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case hosts <- r.Host + r.URL.Path:
		default:
		}
	}))
	t.Cleanup(s.Close)
	a, load := serve("shop/web/0123456789", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.Policy = &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: 200 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}}
	a.Backends = []model.WeightedBackend{{Backend: fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}}, Port: 80, Weight: 1}}
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to(a.Key)}}})}}, load)
	select {
	case got := <-hosts:
		if got != "web.shop.svc.clusterset.local/healthz" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend never saw a probe that it takes")
	}
	e.wait("a probe", func() bool { return strings.Contains(e.get("/clusters"), "health_flags::healthy") })
	if got := ask(t, port, "GET", "a.example", "/", ""); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
}

// Backends of one rule share an assignment also where only one of them has a health check, so that each can take the
// other's part: the one whose probe fails loses its part, the one that is not probed keeps it until it is dead.
func TestOneOfTwoIsCheckedOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	var probe atomic.Int32
	probe.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz":
		case r.Host != "store.shop.svc.clusterset.local":
			w.WriteHeader(http.StatusMisdirectedRequest)
		default:
			w.WriteHeader(int(probe.Load()))
		}
		fmt.Fprint(w, "checked")
	}))
	t.Cleanup(s.Close)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, "plain")
	}))
	t.Cleanup(plain.Close)
	a, load := serve("store", netip.MustParseAddrPort(s.Listener.Addr().String()))
	a.Policy = &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: 100 * time.Millisecond, Timeout: time.Second, Path: "/healthz"}}
	a.Backends = append([]model.WeightedBackend{{Backend: importNamed("plain"), Port: 80, Weight: 1, Unchecked: true}}, a.Backends...)
	load.Localities[0].Weight /= 2
	load.Localities = append(load.Localities, lbsync.Locality{Backend: importNamed("plain"), Cluster: "us-west", Unchecked: true,
		Weight: traffic.TotalParts / 2, Endpoints: []netip.AddrPort{netip.MustParseAddrPort(plain.Listener.Addr().String())}})
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
	becomes := func(why string, want map[string]int) {
		t.Helper()
		e.wait(why, func() bool { return maps.Equal(counted(t, port, "GET", 20), want) })
	}
	becomes("both", map[string]int{"200 checked": 10, "200 plain": 10})
	probe.Store(503)
	becomes("the checked one fails its probe", map[string]int{"200 plain": 20})
	probe.Store(200)
	becomes("it is well again", map[string]int{"200 checked": 10, "200 plain": 10})
	plain.Close()
	becomes("the other is dead", map[string]int{"200 checked": 20})
}

// A backend with header changes of its own has an Envoy cluster of its own. When it is dead, whatever the others have a
// weight of, they answer for it, after its own refuge; while it lives they answer nothing.
func TestFallbackOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, green, west, dead := backend(t, "blue"), backend(t, "green"), backend(t, "west"), netip.MustParseAddrPort("127.0.0.1:1")
	weighted := func(name string, weight uint32) model.WeightedBackend {
		return model.WeightedBackend{Backend: importNamed(name), Port: 80, Weight: weight}
	}
	assignments := []model.Assignment{
		{Key: "blue", Backends: []model.WeightedBackend{weighted("blue", 1)}, Fallback: []model.WeightedBackend{weighted("green", 10)}},
		{Key: "green", Backends: []model.WeightedBackend{weighted("green", 1)}, Fallback: []model.WeightedBackend{weighted("blue", 90)}},
	}
	own := func(name string) model.HeaderChanges {
		return model.HeaderChanges{Set: []model.Header{{Name: "x-set", Value: name}}}
	}
	port := freePort(t)
	p := lbsync.Program{Assignments: assignments, Listeners: []lbsync.Listener{httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{
		Match: prefix("/"), Forward: &model.Forward{Targets: []model.Target{{Assignment: "blue", Weight: 90, Request: own("blue")}, {Assignment: "green", Weight: 10, Request: own("green")}}}}}})}}
	apply := func(addresses map[string][]netip.AddrPort) {
		var loads []lbsync.LoadAssignment
		for _, a := range assignments {
			loads = append(loads, lbsync.Assign(lbsync.AssignInput{Assignment: a, Region: "us", Parts: func(b model.WeightedBackend) (parts []lbsync.Part) {
				for i, address := range addresses[b.Backend.Name.Name] { // the first in the region, so that the others are refuges
					parts = append(parts, lbsync.Part{Backend: b.Backend, Cluster: fleet.ClusterName(fmt.Sprint("c", i)), Place: fleet.Place{Region: []string{"us", "eu"}[i]},
						Endpoints: []fleet.Endpoint{{Address: address.Addr(), Port: int32(address.Port()), State: fleet.Ready}}})
				}
				return parts
			}}))
		}
		e.apply(p, loads...)
	}
	for _, c := range []struct {
		why       string
		addresses map[string][]netip.AddrPort
		want      []string // who answers, and whose changes the request has
	}{
		{"both live", map[string][]netip.AddrPort{"blue": {blue}, "green": {green}}, []string{"blue for blue", "green for green"}},
		{"blue is dead", map[string][]netip.AddrPort{"blue": {dead}, "green": {green}}, []string{"green for blue", "green for green"}},
		{"blue has a refuge", map[string][]netip.AddrPort{"blue": {dead, west}, "green": {green}}, []string{"green for green", "west for blue"}},
		{"green is dead", map[string][]netip.AddrPort{"blue": {blue}, "green": {dead}}, []string{"blue for blue", "blue for green"}},
		{"Kubernetes says that there is no green", map[string][]netip.AddrPort{"blue": {blue}}, []string{"503", "blue for blue"}},
	} {
		apply(c.addresses)
		got := map[string]int{}
		for range 500 {
			answer := ask(t, port, "POST", "a.example", "/", "")
			if status, text, _ := strings.Cut(answer, " "); status == "200" {
				answer = strings.Fields(text)[0] + " for " + text[strings.LastIndex(text, "=")+1:]
			} else {
				answer = status
			}
			got[answer]++
		}
		if c.addresses["blue"][0] == dead && len(c.addresses["blue"]) > 1 && got["green for blue"] < 5 {
			delete(got, "green for blue") // of two that only stand by, the refuge gets thousands of times as much
		}
		if !slices.Equal(slices.Sorted(maps.Keys(got)), c.want) {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}
