package envoy_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// crashable are endpoints on which path /die closes the connection with all of its requests, as a crash does.
type crashable struct {
	mu     sync.Mutex
	died   map[string][]string // by query: the names of the endpoints that read the request
	leaked []string            // headers of the edge's own, on a first try
}

type connectionKey struct{}

func (c *crashable) start(t *testing.T, protocol model.BackendProtocol, name string) netip.AddrPort {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("slow") {
			time.Sleep(600 * time.Millisecond) // longer than Envoy counts at a time
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for header := range r.Header {
			if strings.HasPrefix(header, "X-Crossway-") && r.Header.Get("X-Envoy-Attempt-Count") == "1" {
				c.leaked = append(c.leaked, header)
			}
		}
		if r.URL.Path == "/die" {
			c.died[r.URL.RawQuery] = append(c.died[r.URL.RawQuery], name)
			_ = r.Context().Value(connectionKey{}).(net.Conn).Close()
			return
		}
		fmt.Fprint(w, name)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, connection net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, connection)
	}
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(protocol == model.HTTP1)
	s.Config.Protocols.SetUnencryptedHTTP2(protocol == model.H2C)
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// member is one member's part of import store: living endpoints and dead addresses.
func (c *crashable) member(t *testing.T, protocol model.BackendProtocol, cluster string, weight uint32, living, dead int) lbsync.Locality {
	l := locality(cluster, weight, netip.AddrPort{})
	l.Endpoints = nil
	for i := range living {
		l.Endpoints = append(l.Endpoints, c.start(t, protocol, fmt.Sprintf("%s-%d", cluster, i)))
	}
	for i := range dead {
		l.Endpoints = append(l.Endpoints, netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.%d:1", len(cluster), i+1)))
	}
	return l
}

// A request that crashes whoever reads it reaches 3 endpoints at most, each once. What could not be sent does not count:
// a request that is well finds who lives behind any number of dead addresses.
func TestPoisonRequestOnARealEnvoy(t *testing.T) {
	t.Parallel()
	for _, protocol := range []model.BackendProtocol{model.HTTP1, model.H2C} {
		for _, c := range []struct {
			name    string
			members func(*crashable) []lbsync.Locality
		}{
			{"one member", func(c *crashable) []lbsync.Locality {
				return []lbsync.Locality{c.member(t, protocol, "a", traffic.TotalParts, 10, 0)}
			}},
			{"header changes of the backend", func(c *crashable) []lbsync.Locality { // weighted_clusters
				return []lbsync.Locality{c.member(t, protocol, "a", traffic.TotalParts, 10, 0)}
			}},
			{"two members, one of which has no share", func(c *crashable) []lbsync.Locality {
				other := c.member(t, protocol, "b", 1, 10, 0)
				other.Later = true
				return []lbsync.Locality{c.member(t, protocol, "a", traffic.TotalParts, 10, 0), other}
			}},
			{"dead addresses beside", func(c *crashable) []lbsync.Locality {
				return []lbsync.Locality{c.member(t, protocol, "a", traffic.TotalParts, 5, 5)}
			}},
		} {
			t.Run(string(protocol)+" "+c.name, func(t *testing.T) {
				t.Parallel()
				e, backends := startEdge(t), &crashable{died: map[string][]string{}}
				a, _ := serve("store", netip.AddrPort{})
				a.Protocol = protocol
				port := freePort(t)
				forward := to("store")
				if c.name == "header changes of the backend" {
					forward.Targets[0].Request.Set = []model.Header{{Name: "x-set", Value: "own"}}
				}
				e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
					httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: forward}}})}},
					lbsync.LoadAssignment{Key: "store", Localities: c.members(backends)})
				for i := range 8 {
					if got := ask(t, port, "GET", "a.example", fmt.Sprintf("/die?%d", i), "x-crossway-sends: 1,2,3\r\nx-crossway-bytes: 7\r\nx-envoy-attempt-count: 9"); !strings.HasPrefix(got, "503") {
						t.Errorf("the poison request: %s", got)
					}
					if got := ask(t, port, "POST", "a.example", fmt.Sprintf("/die?post-%d", i), ""); !strings.HasPrefix(got, "503") {
						t.Errorf("the poison request: %s", got)
					}
					if got := ask(t, port, "POST", "a.example", "/", "x-crossway-sends: 1,2,3"); !strings.HasPrefix(got, "200") {
						t.Errorf("a request that is well: %s", got)
					}
				}
				backends.mu.Lock()
				defer backends.mu.Unlock()
				for query, names := range backends.died {
					most := 3
					if strings.HasPrefix(query, "post") {
						most = 1
					}

					elsewhere := 0
					for _, n := range names {
						if n[0] == 'b' {
							elsewhere++
						}
					}
					if len(names) > most || strings.Contains(c.name, "two members") && (len(names) != most || elsewhere != most/2) {
						t.Errorf("poison request %s reached %s", query, names)
					}
				}
				if len(backends.died) != 16 || len(backends.leaked) > 0 {
					t.Errorf("%d poison requests arrived; headers of the edge's own: %s", len(backends.died), backends.leaked)
				}
			})
		}
	}
}

// ending is the address of an endpoint that ends its connection with each request, as a pod does that is just ending.
func ending(t *testing.T) netip.AddrPort {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = connection.Read(make([]byte, 1))
			_ = connection.Close()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// While pods of all members end at the same time, in a rollout of the fleet, a GET meets pods that take no connections any
// more, and then one or two that reset it, in members with a share and without. It is answered by the next pod.
func TestEndingPodsOnARealEnvoy(t *testing.T) {
	gone := func(n int) netip.AddrPort { return netip.MustParseAddrPort(fmt.Sprintf("127.0.1.%d:1", n)) }
	for _, c := range []struct {
		name        string
		home, other []netip.AddrPort
	}{
		{"pods with a share are gone, and one without ends", []netip.AddrPort{gone(1), gone(2)}, []netip.AddrPort{ending(t), backend(t, "new")}},
		{"a pod with a share and one without end", []netip.AddrPort{ending(t), backend(t, "new")}, []netip.AddrPort{ending(t)}},
	} {
		e, port := startEdge(t), freePort(t)
		a, load := serve("store", netip.AddrPort{})
		home, other := locality("a", traffic.TotalParts, netip.AddrPort{}), locality("b", 1, netip.AddrPort{})
		home.Endpoints, other.Endpoints, other.Later = c.home, c.other, true
		load.Localities = []lbsync.Locality{home, other}
		e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
			httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
		if got := counted(t, port, "GET", 40); got["200 new"] != 40 {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// flagged are the addresses of members that Envoy has ejected.
func (e *edge) flagged(members []lbsync.Locality) (ejected []string) {
	hosts := e.get("/clusters")
	for _, m := range members {
		for _, address := range m.Endpoints {
			if strings.Contains(hosts, fmt.Sprintf("store::%s::health_flags::/failed_outlier_check", address)) {
				ejected = append(ejected, address.String())
			}
		}
	}
	return ejected
}

// besieged is what 20 clients did that sent nothing but requests that crash whoever reads them.
type besieged struct {
	asked, failed int // requests of others
	ejected       int // the most living endpoints that were ejected at a time
	allDead       bool
	poison        int
	delay         time.Duration // the longest that the edge took for an answer of its own, or this process for a pause
}

// besiege sends poison for some seconds to an edge with six living endpoints and six addresses that take no connections.
func besiege(t *testing.T, protocol model.BackendProtocol, query string, pause time.Duration) (got besieged) {
	e, backends := startEdge(t), &crashable{died: map[string][]string{}}
	a, _ := serve("store", netip.AddrPort{})
	a.Protocol = protocol
	living, dead := backends.member(t, protocol, "a", 500_000, 6, 0), backends.member(t, protocol, "bb", 500_000, 0, 6)
	port := freePort(t)
	e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
		httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{
			{Match: prefix("/alive"), Respond: &model.Respond{StatusCode: 200}}, {Match: prefix("/"), Forward: to("store")}}})}},
		lbsync.LoadAssignment{Key: "store", Localities: []lbsync.Locality{living, dead}})
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
	defer stop()
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				ask(t, port, "GET", "a.example", fmt.Sprintf("/die?%d-%d%s", i, n, query), "")
			}
		})
	}
	running.Go(func() {
		const pause = 20 * time.Millisecond
		for last := time.Now(); ctx.Err() == nil; {
			time.Sleep(pause) // a machine that stops all processes for a while may do so now
			ask(t, port, "GET", "a.example", "/alive", "")
			now := time.Now()
			got.delay, last = max(got.delay, now.Sub(last)-pause), now
		}
	})
	for ctx.Err() == nil {
		if answer := ask(t, port, "GET", "a.example", "/", ""); !strings.HasPrefix(answer, "200") {
			got.failed++
		}
		got.asked++
		time.Sleep(pause)
		got.ejected = max(got.ejected, len(e.flagged([]lbsync.Locality{living})))
		got.allDead = got.allDead || len(e.flagged([]lbsync.Locality{dead})) == 6
	}
	running.Wait()
	backends.mu.Lock() // an endpoint may still answer what Envoy has given up
	defer backends.mu.Unlock()
	got.poison = len(backends.died)
	return got
}

// Clients that send nothing but requests that crash whoever reads them, many at a time, eject no endpoint that others
// use, fast or slow, and requests of others are answered. Addresses to which no connection can be made are all ejected.
//
// Envoy counts in intervals of 0.5 s. On a machine that lets an edge wait for a good part of that, requests of many
// intervals come in one: such a run says nothing, and is repeated.
func TestPoisonEjectsNobodyOnARealEnvoy(t *testing.T) {
	const busy = 50 * time.Millisecond
	// used is a pause with which each of the six endpoints gets a request of others in each interval. With 0.3 s some get
	// none, and 20 slow requests that began in the interval before and end in one may eject these (seen once).
	const used = 10 * time.Millisecond
	for _, c := range []struct {
		protocol  model.BackendProtocol
		query     string
		pause     time.Duration // between two requests of others
		tolerated int           // of 1000 requests of others: over HTTP/2 they end with the connections that are closed, 3 times, too
	}{{model.HTTP1, "", 0, 0}, {model.H2C, "", 0, 10}, {model.HTTP1, "&slow", used, 0}, {model.H2C, "&slow", used, 10}} {
		t.Run(fmt.Sprint(c.protocol, c.query, c.pause), func(t *testing.T) {
			for range 6 {
				got := besiege(t, c.protocol, c.query, c.pause)
				t.Logf("%+v", got)
				if got.failed*1000 <= c.tolerated*got.asked && got.ejected == 0 && got.allDead {
					return
				}
				if got.delay < busy {
					t.Fatal("an endpoint was ejected, a request of others failed, or a dead address was not ejected")
				}
			}
			t.Skipf("this machine makes an edge wait for more than %s", busy)
		})
	}
}

// Error answers are answers: they eject nobody, and their clients get them. Where a policy asks for it, endpoints that
// answer nothing but 503 are ejected, and another member answers.
func TestErrorAnswersOnARealEnvoy(t *testing.T) {
	broken := func() netip.AddrPort {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
		t.Cleanup(s.Close)
		return netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	home := locality("a", traffic.TotalParts, broken())
	home.Endpoints = append(home.Endpoints, broken())
	other := locality("b", 1, backend(t, "other"))
	other.Later = true
	for _, errors := range []int32{0, 3} {
		e, port := startEdge(t), freePort(t)
		a, load := serve("store", netip.AddrPort{})
		a.Policy = &model.ClusterPolicy{GatewayErrors: errors}
		load.Localities = []lbsync.Locality{home, other}
		e.apply(lbsync.Program{Assignments: []model.Assignment{a}, Listeners: []lbsync.Listener{
			httpListener(port, model.VirtualHost{Hostname: "*", Rules: []model.Rule{{Match: prefix("/"), Forward: to("store")}}})}}, load)
		first, then := counted(t, port, "GET", 20), counted(t, port, "GET", 20)
		if ejected := len(e.flagged([]lbsync.Locality{home})); ejected != min(int(errors), 2) || then["200 other"] != 20*min(int(errors), 1) {
			t.Errorf("with %d errors in a row: %v, then %v, and %d endpoints are ejected", errors, first, then, ejected)
		}
	}
}
