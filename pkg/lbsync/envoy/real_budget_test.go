package envoy_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// costly are Gateways and routes of one namespace, each accepted or not by Build.
type costly struct {
	in   gateway.Input
	port uint16 // the first of the first Gateway
}

// newCostly has one Gateway with one port.
func newCostly(t *testing.T) *costly { return newCostlyWith(t, 1, 1) }

// newCostlyWith has Gateways gw, gw1, gw2 and so on, with as many ports each.
func newCostlyWith(t *testing.T, gateways, ports int) *costly {
	c := &costly{}
	c.in = gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Pools:          []v1alpha1.EdgePool{{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}}},
	}
	for i := range gateways {
		name := "gw"
		if i > 0 {
			name += fmt.Sprint(i)
		}
		one := gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway"}}
		for k := range ports {
			port := freePort(t)
			if c.port == 0 {
				c.port = port
			}
			one.Spec.Listeners = append(one.Spec.Listeners, gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("http", k)),
				Port: gatewayv1.PortNumber(port), Protocol: gatewayv1.HTTPProtocolType})
		}
		c.in.Gateways = append(c.in.Gateways, one)
		c.in.Pools[0].Status.Allocations = append(c.in.Pools[0].Status.Allocations,
			v1alpha1.AddressAllocation{Gateway: v1alpha1.GatewayReference{Namespace: "shop", Name: name}, Address: fmt.Sprintf("127.0.0.%d", i+1)})
	}
	for i := range 2000 {
		name := fmt.Sprintf("b%d", i)
		imported := v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: name + ".shop"}}
		imported.Spec.Service = v1alpha1.ServiceReference{Namespace: "shop", Name: name}
		imported.Spec.Ports = []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Port: 8080}}}
		c.in.Imports = append(c.in.Imports, imported)
	}
	return c
}

// add adds a route with these rules.
func (c *costly) add(hosts []string, rules ...gatewayv1.HTTPRouteRule) {
	n := len(c.in.Routes)
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("r%d", n), Generation: 1, CreationTimestamp: metav1.Unix(int64(n), 0)}}
	for i := range c.in.Gateways {
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, gatewayv1.ParentReference{Name: gatewayv1.ObjectName(c.in.Gateways[i].Name)})
	}
	for _, h := range hosts {
		route.Spec.Hostnames = append(route.Spec.Hostnames, gatewayv1.Hostname(h))
	}
	route.Spec.Rules = rules
	c.in.Routes = append(c.in.Routes, gateway.FromHTTPRoute(route))
}

func backendRef(n int) gatewayv1.HTTPBackendRef {
	return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Group: ptr(gatewayv1.Group(mcsv1beta1.GroupName)), Kind: ptr(gatewayv1.Kind("ServiceImport")), Name: gatewayv1.ObjectName(fmt.Sprintf("b%d", n)), Port: ptr(gatewayv1.PortNumber(8080))}}}
}

// program is what an edge gets, and how many routes were accepted.
func (c *costly) program(t *testing.T) (p lbsync.Program, accepted int) {
	result := gateway.Build(c.in)
	for _, r := range gateway.Report(result, nil) {
		if r.Ref.Kind == condition.HTTPRoute && r.Parents[0].Conditions[0].Status == metav1.ConditionTrue {
			accepted++
		}
	}
	return lbsync.ProgramFor(result.Model, lbsync.PoolRef{Pool: "us", Region: "us"}), accepted
}

// fill adds up to most routes, until no more are accepted. A build takes as long as there are routes, so it looks after 50,
// 100, 200 and so on.
func (c *costly) fill(t *testing.T, most int, add func(i int)) (p lbsync.Program, accepted int) {
	for look := 50; ; look *= 2 {
		for i := len(c.in.Routes); i < min(look, most); i++ {
			add(i)
		}
		if p, accepted = c.program(t); accepted < len(c.in.Routes) || look >= most {
			return p, accepted
		}
	}
}

// loaded is an Envoy that has a program.
type loaded struct {
	send    func(generation uint64, p lbsync.Program) // and wait for the ACKs
	process *os.Process
	before  int // resident memory without the program
}

// load starts an Envoy that gets a program of pool us, and waits until it has it.
func load(t *testing.T, p lbsync.Program) *loaded {
	edge := startHubEdge(t)
	hub, acks, e := edge.hub, edge.acks, &loaded{process: edge.process}
	has := map[string]string{}
	send := func(generation uint64, p lbsync.Program) {
		r := envoy.Translate(p)
		for _, f := range r.Faults {
			t.Errorf("fault: %s", f)
		}
		want := map[string]string{}
		had := has
		has = map[string]string{}
		for _, list := range [][]envoy.Resource{r.Listeners, r.Routes, r.Clusters} {
			for _, one := range list {
				if key := one.TypeURL + one.Name; had[key] != one.Version {
					want[key] = one.Version
				}
				has[one.TypeURL+one.Name] = one.Version
			}
		}
		var loads []server.Resource
		for _, a := range p.Assignments {
			r, err := envoy.LoadAssignment(lbsync.LoadAssignment{Key: a.Key})
			if err != nil {
				t.Fatal(err)
			}
			loads = append(loads, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
		}
		hub.UpdateLoadAssignments("us", loads, nil)
		hub.SetResources("us", snapshot(generation, r))
		timeout := time.After(20 * time.Second)
		for len(want) > 0 {
			select {
			case a := <-acks:
				if want[a.typeURL+a.name] == a.version {
					delete(want, a.typeURL+a.name)
				}
			case <-timeout:
				t.Fatalf("%d resources were not taken: %.300v", len(want), want)
			}
		}
	}
	small := newCostly(t)
	small.add([]string{"small.example"}, gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{backendRef(0)}})
	first, _ := small.program(t)
	send(1, first)
	e.before = e.resident()
	send(2, p)
	e.send = send
	return e
}

// resident is the Envoy's resident memory.
func (e *loaded) resident() (size int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.process.Pid))
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			_, _ = fmt.Sscan(rest, &size)
		}
	}
	return size << 10
}

// rule is a rule of one backend for a path.
func costlyRule(backend int, path string) gatewayv1.HTTPRouteRule {
	return gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{backendRef(backend)},
		Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &path}}}}
}

// setHeaders is a filter that sets n headers to long values.
func setHeaders(n, length int) []gatewayv1.HTTPRouteFilter {
	change := &gatewayv1.HTTPHeaderFilter{}
	for i := range n {
		change.Set = append(change.Set, gatewayv1.HTTPHeader{Name: gatewayv1.HTTPHeaderName(fmt.Sprintf("x-h%d", i)), Value: strings.Repeat("v", length)})
	}
	return []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: change}}
}

// What one namespace may have accepted takes an Envoy at most 64 MB, whatever it is
// made of. Each case adds routes until no more are accepted.
func TestBudgetsBoundTheMemoryOfAnEdge(t *testing.T) {
	host := func(i int) []string { return []string{fmt.Sprintf("h%d.example.com", i)} }
	one := []string{"h.example.com"}
	for _, c := range []struct {
		name string
		add  func(c *costly, i int)
	}{
		{"as in the bench", func(c *costly, i int) {
			rule := costlyRule(i, "/")
			rule.Filters = setHeaders(1, 3)
			c.add(host(i), rule)
		}},
		{"one path each", func(c *costly, i int) { c.add(one, costlyRule(0, fmt.Sprint("/", i))) }},
		{"16 hosts each", func(c *costly, i int) {
			var hosts []string
			for k := range 16 {
				hosts = append(hosts, host(i*16 + k)[0])
			}
			c.add(hosts, costlyRule(0, "/"))
		}},
		{"hosts that no two routes have together", func(c *costly, i int) {
			var hosts []string
			for k := range 8 {
				hosts = append(hosts, host(i/2*8 + k)[0])
			}
			c.add(append(hosts, host(100000+i)...), costlyRule(0, fmt.Sprint("/", i)))
		}},
		{"long values", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprint("/", i))
			rule.Filters = setHeaders(16, 4096)
			c.add(one, rule)
		}},
		{"many short headers", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprint("/", i))
			rule.Filters = setHeaders(16, 1)
			c.add(one, rule)
		}},
		{"backends with filters", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprint("/", i))
			rule.BackendRefs = nil
			for k := range 16 {
				ref := backendRef((i*16 + k) % 2000)
				ref.Filters = setHeaders(2, 10)
				rule.BackendRefs = append(rule.BackendRefs, ref)
			}
			c.add(host(i), rule)
		}},
		{"header matches", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprint("/", i))
			for k := range 16 {
				rule.Matches[0].Headers = append(rule.Matches[0].Headers, gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(fmt.Sprint("x-", k)), Value: "1"})
			}
			c.add(host(i), rule)
		}},
		{"long paths", func(c *costly, i int) {
			c.add(host(i), costlyRule(0, fmt.Sprint("/", i, "/", strings.Repeat("a", 1000))))
		}},
		{"mirrors", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprint("/", i))
			for k := range 15 {
				rule.Filters = append(rule.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestMirror,
					RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: backendRef(k).BackendObjectReference}})
			}
			c.add(host(i), rule)
		}},
		{"one path each under a wildcard with many rules", func(c *costly, i int) {
			if i == 0 {
				var all []gatewayv1.HTTPRouteRule
				for k := range 16 {
					all = append(all, costlyRule(k, fmt.Sprint("/wide/", k)))
				}
				c.add([]string{"*.example.com"}, all...)
			}
			c.add(host(i), costlyRule(0, "/a"))
		}},
		{"regular expressions", func(c *costly, i int) {
			rule := costlyRule(0, fmt.Sprintf("/(foo|bar|baz)/[a-z0-9-]{1,63}/%d", i))
			rule.Matches[0].Path.Type = ptr(gatewayv1.PathMatchRegularExpression)
			c.add(host(i), rule)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newCostly(t)
			p, accepted := x.fill(t, 10000, func(i int) { c.add(x, i) })
			e := load(t, p)
			grown := e.resident() - e.before
			t.Logf("%d of %d routes: %.1f MB", accepted, len(x.in.Routes), float64(grown)/1e6)
			if grown > 64<<20 {
				t.Errorf("the edge has grown by %.1f MB", float64(grown)/1e6)
			}
			_ = e.process.Kill()
		})
	}
}

// request is the head of a request for a host of the budget tests, without its last line.
func request(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nhost: h.example.com\r\n" + strings.Join(headers, "")
}

// usualTime is how long an Envoy computes for such a request. It is processor time, because a busy machine makes all
// requests wait.
func usualTime(t *testing.T, pid int, port uint16, requests func(n int) string) time.Duration {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	var times []time.Duration
	for n := range 15 {
		text := requests(n) + "\r\n"
		before := allThreads(t, pid)
		fmt.Fprint(conn, text)
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		time.Sleep(2 * time.Millisecond) // the kernel adds a thread's time once the thread waits again
		times = append(times, allThreads(t, pid)-before)
		if response.StatusCode != http.StatusNotFound {
			t.Fatalf("status %d", response.StatusCode)
		}
	}
	slices.Sort(times)
	return times[len(times)/3]
}

// random is a text of n letters out of some.
func random(n, seed int, letters string) string {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	out := make([]byte, n)
	for i := range out {
		out[i] = letters[r.IntN(len(letters))]
	}
	return string(out)
}

// Whatever one namespace may have accepted on a hostname, choosing the route of the dearest request takes at most 10 ms.
// Each case adds routes until no more are accepted, and sends requests that all of them look at in vain.
func TestBudgetsBoundTheTimeOfARequest(t *testing.T) {
	regexRule := func(pattern string) gatewayv1.HTTPRouteRule {
		rule := costlyRule(0, pattern)
		rule.Matches[0].Path.Type = ptr(gatewayv1.PathMatchRegularExpression)
		return rule
	}
	withHeaders := func(i int, kind gatewayv1.HeaderMatchType, value string) gatewayv1.HTTPRouteRule {
		rule := costlyRule(0, fmt.Sprint("/no/", i))
		for k := range 16 {
			rule.Matches[0].Headers = append(rule.Matches[0].Headers, gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(fmt.Sprint("x-", k)), Type: &kind, Value: value})
		}
		rule.Matches[0].Headers[15].Value = "no"
		rule.Matches[0].Path.Value = ptr("/")
		return rule
	}
	many := func(value string) (all []string) {
		for k := range 16 {
			all = append(all, fmt.Sprintf("x-%d: %s\r\n", k, value))
		}
		return all
	}
	for _, c := range []struct {
		name     string
		rule     func(i int) gatewayv1.HTTPRouteRule
		requests func(n int) string
	}{
		{"paths", func(i int) gatewayv1.HTTPRouteRule { return costlyRule(0, fmt.Sprint("/p/", i)) },
			func(n int) string { return request("/" + random(30000, n, "ab")) }},
		{"regular expressions", func(i int) gatewayv1.HTTPRouteRule { return regexRule(fmt.Sprintf("/.*/items/.*/%d", i)) },
			func(n int) string { return request("/" + strings.Repeat("a/items/b", 3300)) }},
		{"regular expressions with many states", func(i int) gatewayv1.HTTPRouteRule { return regexRule(fmt.Sprintf("/.*a[ab]{8}%d", i)) },
			func(n int) string { return request("/" + random(30000, n, "ab")) }},
		{"regular expressions with too many states", func(i int) gatewayv1.HTTPRouteRule { return regexRule(fmt.Sprintf("/[ab]{0,700}a[ab]{20}%d", i)) },
			func(n int) string { return request("/" + random(30000, n, "ab")) }},
		{"regular expressions of bounded length", func(i int) gatewayv1.HTTPRouteRule {
			return regexRule(fmt.Sprintf("/(foo|bar|baz)/[a-z0-9-]{1,63}%d", i))
		},
			func(n int) string { return request("/foo/" + random(30000, n, "ab")) }},
		{"header matches", func(i int) gatewayv1.HTTPRouteRule {
			return withHeaders(i, gatewayv1.HeaderMatchExact, strings.Repeat("v", 1900))
		},
			func(n int) string { return request("/", many(strings.Repeat("v", 1900))...) }},
		{"header matches by regular expressions", func(i int) gatewayv1.HTTPRouteRule {
			return withHeaders(i, gatewayv1.HeaderMatchRegularExpression, ".*v")
		},
			func(n int) string { return request("/", many(strings.Repeat("v", 1900))...) }},
		{"a header that comes many times", func(i int) gatewayv1.HTTPRouteRule {
			rule := costlyRule(0, "/")
			rule.Matches[0].Headers = []gatewayv1.HTTPHeaderMatch{{Name: "x-0", Value: fmt.Sprint(i)}}
			return rule
		}, func(n int) string { return request("/", strings.Repeat("x-0: "+strings.Repeat("v", 370)+"\r\n", 80)) }},
		{"queries", func(i int) gatewayv1.HTTPRouteRule {
			rule := costlyRule(0, "/")
			for k := range 16 {
				rule.Matches[0].QueryParams = append(rule.Matches[0].QueryParams, gatewayv1.HTTPQueryParamMatch{Name: gatewayv1.HTTPHeaderName(fmt.Sprint("q", k)), Value: "1"})
			}
			rule.Matches[0].QueryParams[15].Value = fmt.Sprint("no", i)
			return rule
		}, func(n int) string {
			path := "/?q0=1"
			for k := range 15 {
				path += fmt.Sprintf("&q%d=1", k+1)
			}
			for k := range 5400 {
				path += fmt.Sprintf("&%x", k)
			}
			return request(path)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newCostly(t)
			p, accepted := x.fill(t, 2000, func(i int) { x.add([]string{"h.example.com"}, c.rule(i)) })
			e := load(t, p)
			baseline := usualTime(t, e.process.Pid, x.port, func(n int) string { return strings.ReplaceAll(c.requests(n), "h.example.com", "other.example") })
			took := usualTime(t, e.process.Pid, x.port, c.requests) - baseline
			grown := e.resident() - e.before
			t.Logf("%d of %d routes: %v (and %v for the rest), %.1f MB", accepted, len(x.in.Routes), took, baseline, float64(grown)/1e6)
			if took > 10*time.Millisecond || grown > 64<<20 {
				t.Errorf("choosing the route takes %v and %.1f MB", took, float64(grown)/1e6)
			}
			_ = e.process.Kill()
		})
	}
}

// randomPattern is a regular expression of RE2.
func randomPattern(r *rand.Rand, depth int) string {
	atoms := []string{"a", "[a-z]", "[a-z0-9-]", "[^/]", ".", `\d`, `\w`, `\W`, `\pL`, `[\pL\pN]`, "(?i:shop)", "(?i:k)", "foo", `\s`, `\S`,
		"[^a-z]", "(?s:.)", "/", "^", "$", "[[:alpha:]]", `\p{Lu}`, `[\P{^Nd}\pZ]`, `[\x{80}-\x{ff}]`, `\xe9`, `\377`, `\Q.*\E`, "(?i:[k-s])", `\PL`}
	atom := func() string { return atoms[r.IntN(len(atoms))] }
	if depth == 0 {
		return atom()
	}
	part := func() string { return randomPattern(r, depth-1) }
	switch low := r.IntN(20); r.IntN(6) {
	case 0:
		return part() + part()
	case 1:
		return "(" + part() + "|" + part() + ")"
	case 2:
		return "(?:" + part() + ")" + []string{"*", "+", "?", "*?", "+?"}[r.IntN(5)]
	case 3:
		return "(?:" + part() + ")" + fmt.Sprintf("{%d,%d}", low, low+r.IntN(40))
	case 4:
		return "(?:" + part() + ")" + fmt.Sprintf("{%d,}", low)
	default:
		return atom() + part() + atom()
	}
}

// unbounded takes the budgets away.
func unbounded(x *costly) {
	all := v1alpha1.Budget{Routes: ptr(int32(1 << 30)), Clusters: ptr(int32(1 << 30)), Memory: ptr(resource.MustParse("1000Gi")), MatchMicroseconds: ptr(int32(1 << 30))}
	x.in.Parameters = []v1alpha1.GatewayParameters{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "all"},
		Spec: v1alpha1.GatewayParametersSpec{Budgets: v1alpha1.Budgets{RegexSteps: ptr(int32(gateway.MaxRegexSteps)), Route: all, Namespace: all, Gateway: all}}}}
	x.in.GatewayClasses[0].Spec.ParametersRef = &gatewayv1.ParametersReference{Group: gatewayv1.Group(v1alpha1.GroupVersion.Group), Kind: "GatewayParameters", Name: "all", Namespace: ptr(gatewayv1.Namespace("shop"))}
}

// Whatever regular expression the hub accepts, an Envoy takes: the hub's estimate of RE2's program is never below RE2's
// own count. Each pattern is repeated until the hub refuses it, so that many are just below the limit.
func TestRegexStepsAreAnUpperEstimate(t *testing.T) {
	x := newCostly(t)
	unbounded(x)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for range 150 {
		pattern := randomPattern(r, r.IntN(4))
		for _, times := range []int{1, 5, 20, 50, 100, 200, 400, 800} {
			rule := costlyRule(0, "/"+strings.Repeat("(?:"+pattern+")", min(times, 3))+fmt.Sprintf("(?:%s){%d}", pattern, times))
			rule.Matches[0].Path.Type = ptr(gatewayv1.PathMatchRegularExpression)
			x.add([]string{"h.example.com"}, rule)
		}
	}
	p, accepted := x.program(t)
	t.Logf("%d of %d patterns are accepted", accepted, len(x.in.Routes))
	if accepted < len(x.in.Routes)/10 || accepted == len(x.in.Routes) {
		t.Error("that is not where the limit is")
	}
	e := load(t, p) // fails if the Envoy refuses anything
	_ = e.process.Kill()
}
