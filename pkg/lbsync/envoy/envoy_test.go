package envoy_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the goldens")

// golden compares a resource, as YAML, with testdata/<name>.yaml.
func golden(t *testing.T, name string, r envoy.Resource) {
	t.Helper()
	message, err := r.Body.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	json, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.JSONToYAML(json)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".yaml")
	if *rewrite {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := os.ReadFile(file)
	if string(want) != string(text) {
		t.Errorf("%s is not\n%s\nbut\n%s", file, want, text)
	}
}

// What may be repeated, what may not; that no answer is cut; that a rewrite leaves the query alone.
func TestRouteGolden(t *testing.T) {
	l := httpListener(80, model.VirtualHost{Hostname: "a.example", Rules: []model.Rule{{
		Origin:  model.Origin{Route: fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "site", Name: "home"}}, Rule: 1, Name: "main"},
		Match:   prefix("/p"),
		Forward: to("shop/store/6b2f"),
	}}})
	r := envoy.Translate(lbsync.Program{Listeners: []lbsync.Listener{l}})
	golden(t, "routes", r.Routes[0])
}

// routesOf is what the Envoy routes of a rule say.
func routesOf(port uint16, protocol model.Protocol, rule model.Rule) []*routev3.Route {
	rule.Match = prefix("/")
	l := httpListener(port, model.VirtualHost{Hostname: "a.example", Rules: []model.Rule{rule}})
	l.Protocol, l.Chains[0].Secrets = protocol, []string{"infra/a"}
	message, _ := envoy.Translate(lbsync.Program{Listeners: []lbsync.Listener{l}}).Routes[0].Body.UnmarshalNew()
	return message.(*routev3.RouteConfiguration).GetVirtualHosts()[0].GetRoutes()
}

// What a rule says of time holds: nothing cuts an answer earlier.
func TestLongTimeouts(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct{ whole, each, idle *time.Duration }{
		{new(hour), nil, nil},
		{new(10 * hour), nil, new(10 * hour)},
		{new(0 * hour), nil, new(0 * hour)},
		{nil, new(10 * hour), new(30 * hour)}, // three tries
		{new(0 * hour), new(10 * hour), new(0 * hour)},
		{new(12 * hour), new(10 * hour), new(12 * hour)},
		{nil, new(hour / 3), nil},
	} {
		got := routesOf(80, model.HTTP, model.Rule{Forward: to("a"), Timeout: c.whole, BackendTimeout: c.each})[0].GetRoute().GetIdleTimeout()
		if (got == nil) != (c.idle == nil) || c.idle != nil && got.AsDuration() != *c.idle {
			t.Errorf("timeouts %v and %v: idle timeout %v, want %v", c.whole, c.each, got, c.idle)
		}
	}
}

// A Location has no default port (apis/v1 HTTPRequestRedirectFilter.Port), unless the Host has one that Envoy would keep.
func TestRedirectPorts(t *testing.T) {
	for _, c := range []struct {
		port           uint16
		protocol       model.Protocol
		redirect       model.Redirect
		named, unnamed uint32 // 0: none
	}{
		{80, model.HTTP, model.Redirect{Scheme: "https"}, 443, 0},
		{80, model.HTTP, model.Redirect{Scheme: "https", Port: 443}, 443, 0},
		{80, model.HTTP, model.Redirect{Scheme: "https", Port: 8443}, 8443, 8443},
		{80, model.HTTP, model.Redirect{Scheme: "https", Hostname: "b.example"}, 0, 0},
		{443, model.HTTPS, model.Redirect{}, 443, 0},
		{8080, model.HTTP, model.Redirect{Scheme: "https"}, 443, 0},
		{8080, model.HTTP, model.Redirect{}, 8080, 8080},
		{443, model.HTTP, model.Redirect{}, 443, 443},
	} {
		routes := routesOf(c.port, c.protocol, model.Rule{Redirect: &c.redirect})
		named, unnamed := routes[0].GetRedirect().GetPortRedirect(), routes[1].GetRedirect().GetPortRedirect()
		if named != c.named || unnamed != c.unnamed {
			t.Errorf("%s at %d, %+v: ports %d and %d, want %d and %d", c.protocol, c.port, c.redirect, named, unnamed, c.named, c.unnamed)
		}
	}
}

// The failover set, health checks, and HTTP/2 to the backend.
func TestClusterGolden(t *testing.T) {
	a := model.Assignment{Key: "shop/store/6b2f", Protocol: model.H2C, Policy: &model.ClusterPolicy{GatewayErrors: 5, HealthCheck: &model.HealthCheck{Interval: 5 * time.Second, Timeout: time.Second, Path: "/healthz"}}}
	golden(t, "cluster", envoy.Translate(lbsync.Program{Assignments: []model.Assignment{a}}).Clusters[0])
}

func TestLoadAssignmentGolden(t *testing.T) {
	a := lbsync.LoadAssignment{Key: "shop/store/6b2f", Drop: 300_000,
		Localities: []lbsync.Locality{
			{Backend: importNamed("store"), Cluster: "eu-west", Place: fleet.Place{Region: "eu"}, Weight: 1, Endpoints: addresses("10.3.0.1:80")},
			{Backend: importNamed("store"), Cluster: "us-west", Place: fleet.Place{Region: "us", Zone: "us-a"}, Weight: traffic.TotalParts, Endpoints: addresses("10.1.0.1:80", "[fd00::1]:80")},
		},
		Shares: []traffic.BackendShares{{Backend: importNamed("store"), RegionShares: traffic.RegionShares{Region: "us", Shares: []traffic.Share{{Cluster: "us-west", Parts: traffic.TotalParts}}}}},
	}
	r, err := envoy.LoadAssignment(a)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "assignment", r)
	hash, shares, ok := traffic.ParseVersion(r.Version)
	if !ok || hash == "" || shares[0].PartsOf("us-west") != traffic.TotalParts {
		t.Errorf("version %s: %v", r.Version, shares)
	}
}

// What was encoded for one region is used again for another only where that has the very same.
func TestLoadAssignmentsOfSeveralRegions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	flip := func() bool { return random.IntN(2) == 0 }
	var all envoy.LoadAssignments
	different := map[string]bool{}
	for range 500 {
		a := lbsync.LoadAssignment{Key: "shop/store/6b2f", Drop: uint32(random.IntN(2) * 1000)}
		for _, cluster := range []fleet.ClusterName{"us-west", "us-east", "eu-west"} {
			l := lbsync.Locality{Backend: importNamed("store"), Cluster: cluster, Weight: uint32(1 + random.IntN(2)), Later: flip(), Unchecked: flip(),
				Place: fleet.Place{Region: "us", Zone: fmt.Sprint("zone-", random.IntN(2))}}
			for k := range 1 + random.IntN(2) {
				l.Endpoints = append(l.Endpoints, addresses(fmt.Sprintf("10.1.%d.%d:80", random.IntN(2), k))...)
			}
			a.Localities = append(a.Localities, l)
		}
		got, err := all.Encode(a)
		testkit.Must(t, err)
		want, err := envoy.LoadAssignment(a)
		testkit.Must(t, err)
		if !proto.Equal(got.Body, want.Body) || got.Version != want.Version {
			t.Fatalf("%+v: got %s, want %s", a, got.Version, want.Version)
		}
		different[got.Version] = true
	}
	if len(different) < 100 {
		t.Errorf("only %d different ones", len(different))
	}
}

func addresses(all ...string) (out []netip.AddrPort) {
	for _, a := range all {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

// Each bad rule is answered 500 and named; the rule beside it is untouched.
func TestABadRuleSpoilsItselfAlone(t *testing.T) {
	header := func(name, value string) model.HeaderChanges {
		return model.HeaderChanges{Set: []model.Header{{Name: name, Value: value}}}
	}
	good := model.Rule{Match: prefix("/good"), Forward: to("a")}
	for what, bad := range map[string]model.Rule{
		"closing ]":         {Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: "/[a"}}, Forward: to("a")},
		"invalid or unsup":  {Match: model.Match{Path: prefix("/").Path, Headers: []model.ValueMatch{{Name: "x", Value: "(?=a)", Regex: true}}}, Forward: to("a")},
		"no header name":    {Match: prefix("/"), Forward: to("a"), Request: header("x y", "z")},
		"not as a header":   {Match: prefix("/"), Forward: to("a"), Response: header("Host", "z")},
		"HeaderValue.Value": {Match: prefix("/"), Forward: to("a"), Request: header("x", "a\nb")},
		"weights sum to ":   {Match: prefix("/"), Forward: &model.Forward{Targets: []model.Target{{Assignment: "a", Weight: 1<<32 - 1}, {Assignment: "b", Weight: 1<<32 - 1}, {Assignment: "c", Weight: 1<<10 + 3}}}},
		"PathSeparated":     {Match: prefix("/a?b"), Forward: to("a")},
		"Status":            {Match: prefix("/"), Respond: &model.Respond{StatusCode: 99}},
	} {
		bad.Origin.Route = fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Name: "bad"}}
		r := envoy.Translate(lbsync.Program{Listeners: []lbsync.Listener{httpListener(80, model.VirtualHost{Hostname: "a.example", Rules: []model.Rule{bad, good}})}})
		if len(r.Faults) == 0 || !strings.Contains(r.Faults[0].Message, what) || !strings.HasPrefix(r.Faults[0].Part, "/bad/0") {
			t.Errorf("%s: %v", what, r.Faults)
		}
		if len(r.Routes) != 1 {
			t.Fatalf("%s: the whole RouteConfiguration is lost: %v", what, r.Faults)
		}
		message, _ := r.Routes[0].Body.UnmarshalNew()
		routes := message.(*routev3.RouteConfiguration).GetVirtualHosts()[0].GetRoutes()
		for _, route := range routes[len(routes)-1:] {
			if route.GetRoute().GetCluster() != "a" || route.GetMatch().GetPathSeparatedPrefix() != "/good" {
				t.Errorf("%s: the neighbour is %v", what, route)
			}
		}
		for _, route := range routes[:len(routes)-1] {
			if route.GetDirectResponse().GetStatus() != 500 {
				t.Errorf("%s: answered by %v", what, route)
			}
		}
	}
}

// What is wrong inside a filter of a chain, an Any in the Listener, closes that chain alone.
func TestABadChainIsClosed(t *testing.T) {
	l := httpListener(443)
	l.Protocol = model.HTTPS
	l.Chains = []model.Chain{{Name: "good", ServerName: "a.example", Secrets: []string{"infra/a"}}, {Name: "bad", ServerName: "b.example", Secrets: []string{"infra/b"}, TCP: &model.L4Forward{Targets: []model.L4Target{{Assignment: "a"}, {Assignment: "b"}}}}}
	r := envoy.Translate(lbsync.Program{Listeners: []lbsync.Listener{l}})
	if len(r.Listeners) != 1 || len(r.Faults) != 1 || r.Faults[0].Part != "bad" {
		t.Fatalf("%d listeners, %v", len(r.Listeners), r.Faults)
	}
	message, _ := r.Listeners[0].Body.UnmarshalNew()
	for _, c := range message.(*listenerv3.Listener).GetFilterChains() {
		if closed := c.GetFilters()[0].GetName() == "envoy.filters.network.tcp_proxy"; closed != (c.GetName() == "bad") {
			t.Errorf("chain %s: closed %v", c.GetName(), closed)
		}
	}
}

func TestABadResourceIsLeftOut(t *testing.T) {
	r := envoy.Translate(lbsync.Program{Assignments: []model.Assignment{{Key: "good"}, {Key: ""}, {Key: "bad", Policy: &model.ClusterPolicy{HealthCheck: &model.HealthCheck{}}}}})
	if len(r.Clusters) != 1 || r.Clusters[0].Name != "good" || len(r.Faults) != 2 {
		t.Errorf("%v %v", r.Clusters, r.Faults)
	}
	if _, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: ""}); err == nil {
		t.Error("a load assignment without a name")
	}
	if _, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: "a\xff"}); err == nil {
		t.Error("a load assignment with a name that is no text")
	}
}

// What is shared is not written to.
func TestAppendLeavesWhatItShares(t *testing.T) {
	shared := envoy.Resources{Routes: append(make([]envoy.Resource, 0, 2), envoy.Resource{Name: "shared"})}
	var a, b envoy.Resources
	for out, name := range map[*envoy.Resources]string{&a: "a", &b: "b"} {
		out.Append(shared)
		out.Append(envoy.Resources{Routes: []envoy.Resource{{Name: name}}})
	}
	if a.Routes[1].Name != "a" || b.Routes[1].Name != "b" {
		t.Error(a, b)
	}
}

// A Cache changes nothing but the time, whatever changes between two calls. What does not change is the same memory, as
// gateway.Build gives it.
func TestCacheChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cache envoy.Cache
		hosts := large(60).Listeners[0].Chains[0].Hosts
		if rapid.Bool().Draw(t, "a host without rules") {
			hosts = append([]model.VirtualHost{{Hostname: "*"}}, hosts...)
		}
		var all []envoy.Resources
		var wanted [][]string
		for range 4 {
			p := large(1)
			hosts = otherHosts(t, hosts)
			p.Listeners[0].Chains[0].Hosts, p.Listeners[0].Chains[0].Secrets = hosts, []string{"infra/a"}
			p.Listeners[0].Port = rapid.SampledFrom([]uint16{80, 8080}).Draw(t, "port")
			p.Listeners[0].Protocol = rapid.SampledFrom([]model.Protocol{model.HTTP, model.HTTP, model.HTTPS}).Draw(t, "protocol")
			p.Listeners[0].Chains[0].Misdirected = rapid.SampledFrom([][]string{nil, nil, {"h3.example", "elsewhere.example"}}).Draw(t, "misdirected")
			for range rapid.IntRange(1, 2).Draw(t, "places") {
				all, wanted = append(all, cache.Translate(p)), append(wanted, versions(envoy.Translate(p)))
			}
			for i := range all { // what it gave before stays as it was
				if !slices.Equal(versions(all[i]), wanted[i]) {
					t.Fatalf("translation %d of %d differs from one without memory", i+1, len(all))
				}
			}
			if rapid.Bool().Draw(t, "sweep") {
				cache.Sweep()
			}
		}
	})
}

// otherHosts are hosts of which some have other rules or names, or went.
func otherHosts(t *rapid.T, hosts []model.VirtualHost) []model.VirtualHost {
	if rapid.IntRange(0, 7).Draw(t, "shorter") == 7 {
		return hosts[:len(hosts)-1] // in the same memory
	}
	hosts = slices.Clone(hosts)
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		k := rapid.IntRange(0, 3).Draw(t, "host") // few, so that some change again
		owner := fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "site", Name: rapid.SampledFrom([]string{"a", "a", "b"}).Draw(t, "owner")}}
		rule := model.Rule{Origin: model.Origin{Route: owner}, Match: prefix("/" + rapid.StringMatching("[a-c]").Draw(t, "path")), Redirect: &model.Redirect{StatusCode: 301, Hostname: "b"}}
		how := rapid.IntRange(0, 9).Draw(t, "how")
		switch {
		case how == 9: // no hostname, to Envoy
			hosts[k].Hostname = "a\nb"
		case hosts[k].Hostname == "*":
			hosts[k].Rules = nil
		case how == 8 || how == 6:
			rule.Response.Remove = []string{"a bad name"}
			hosts[k].Rules = []model.Rule{rule}
		case how == 7:
			hosts[k].Hostname = fmt.Sprintf("other%d.example", k)
		case how < 3:
			hosts[k].Rules = append(slices.Clone(hosts[k].Rules), rule)
		case how < 5:
			hosts[k].Rules = []model.Rule{rule}
		default: // two hosts of one route
			hosts[k].Rules = hosts[len(hosts)-1].Rules
		}
	}
	if rapid.Bool().Draw(t, "fewer") {
		k := rapid.IntRange(0, len(hosts)-1).Draw(t, "host")
		hosts = slices.Delete(hosts, k, k+1)
	}
	return hosts
}

func versions(r envoy.Resources) (out []string) {
	for _, kind := range [][]envoy.Resource{r.Listeners, r.Routes, r.Clusters, r.Secrets} {
		for _, one := range kind {
			out = append(out, fmt.Sprint(one.TypeURL, one.Name, one.Version, one.Sources))
		}
	}
	for _, fault := range r.Faults {
		out = append(out, fault.String())
	}
	return out
}

func TestProgramForAPlace(t *testing.T) {
	l := func(name, pool string, keys ...string) model.Listener {
		out := model.Listener{Gateway: fleet.ObjectName{Namespace: "infra", Name: name}, Port: 80, Protocol: model.HTTPS,
			Addresses: []model.Address{{Pool: pool, Address: netip.MustParseAddr("198.18.0.1")}}, Chains: []model.Chain{{Name: "c", Secrets: []string{"infra/" + name}}}}
		for _, key := range keys {
			out.Chains[0].Hosts = append(out.Chains[0].Hosts, model.VirtualHost{Hostname: key, Rules: []model.Rule{{Forward: to(key), Mirrors: []model.Mirror{{Assignment: key + "-mirror"}}}}})
		}
		return out
	}
	m := model.Model{Listeners: []model.Listener{l("mine", "us", "a"), l("theirs", "eu", "b"), l("bare", "us")}}
	m.Listeners[2].Chains = nil
	for _, key := range []string{"a", "a-mirror", "b", "b-mirror", "unused"} {
		m.Assignments = append(m.Assignments, model.Assignment{Key: key})
	}
	m.Secrets = []model.Secret{{Name: "infra/mine"}, {Name: "infra/theirs"}}
	p := lbsync.ProgramFor(m, lbsync.PoolRef{Pool: "us", Region: "us"})
	got := fmt.Sprint(len(p.Listeners), p.Listeners[0].Gateway, p.Listeners[0].Address)
	for _, a := range p.Assignments {
		got += " " + a.Key
	}
	for _, s := range p.Secrets {
		got += " " + s.Name
	}
	if want := "1 infra/mine 198.18.0.1 a a-mirror infra/mine/80/c/0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
